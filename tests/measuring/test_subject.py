import pytest
import torch
from original_files import network, write
from torch.nn import functional

from smoothout.measuring.subject import Place, Sampling, label, load
from smoothout.train.evaluation import Conditions, evaluate


@pytest.fixture
def run(digits_runs):
    return digits_runs / "plain" / "0"


def test_it_is_measured_as_it_is_evaluated(run):
    subject = load(Place(run, ("train", "test"), Sampling(batch_size=700), "cpu"))
    for split in ("train", "test"):
        total, count = 0.0, 0
        with torch.no_grad():
            subject.network.eval()
            for inputs, targets in subject.samples[split]:
                total += float(functional.cross_entropy(subject.network(inputs), targets, reduction="sum"))
                count += len(targets)
        [expected] = evaluate(run, [split], Conditions())
        assert count == expected.risk.samples
        assert total / count == pytest.approx(expected.risk.loss, rel=1e-6)


def test_a_subset_depends_on_its_seed_alone_and_keeps_the_order(run):
    def take(**options):
        subject = load(Place(run, ("train",), Sampling(**options), "cpu"))
        return torch.cat([inputs for inputs, _ in subject.samples["train"]])

    whole, part = take(), take(samples=50, seed=3)
    assert torch.equal(part, take(samples=50, seed=3, batch_size=7))
    assert not torch.equal(part, take(samples=50, seed=4))
    places = [int((whole == row).all(1).nonzero()[0]) for row in part.flatten(1)] if whole.dim() == 2 else []
    assert places == sorted(places)
    assert len(part) == 50


def test_the_digest_tells_weights_and_samples_apart(run):
    def digest(path, **options):
        load.cache_clear()
        return load(Place(path, ("train",), Sampling(**options), "cpu")).digest

    assert digest(run) == digest(run / "checkpoints" / "best")
    assert digest(run) != digest(run / "checkpoints" / "initial")
    assert digest(run) != digest(run, samples=50)


def test_the_originals_file_has_nothing_held_out(tmp_path, run):
    path = write(tmp_path / "model_best.pth.tar", "mnist_f1", network("mnist_f1", (1, 28, 28), 10))
    place = Place(path, ("holdout",), Sampling(), "cpu", (("dataset", "digits"), ("input_size", 28)))
    with pytest.raises(ValueError, match="split 'holdout' has no samples"):
        load(place)


def test_labels_are_what_tells_checkpoints_apart(tmp_path):
    paths = [tmp_path / "demo" / arm / seed for arm in ("large", "small") for seed in ("0", "1")]
    assert [label(path, paths) for path in paths] == ["large/0", "large/1", "small/0", "small/1"]
    assert label(paths[0], paths[:1]) == "large/0"


@pytest.mark.parametrize("options", [{"samples": 0}, {"batch_size": 0}, {"seed": -1}])
def test_bad_sampling(options):
    [name] = options
    with pytest.raises(ValueError, match=f"{name} is {options[name]}; expected a whole number"):
        Sampling(**options)
