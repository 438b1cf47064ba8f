import shutil

import pytest
import torch
from original_files import network, write
from torch.nn import functional

from smoothout import samples
from smoothout.cli.main import main
from smoothout.measuring.sharpness import Wanted, measure, tasks
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
    places = [int((whole.flatten(1) == row).all(1).nonzero()[0]) for row in part.flatten(1)]
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


def test_a_checkpoint_that_changes_while_it_is_measured_is_told(run, tmp_path):
    shutil.copytree(run, tmp_path / "mine")
    place = Place(tmp_path / "mine", ("train",), Sampling(samples=50), "cpu")
    [task] = tasks([place], Wanted(measures="ball"))
    shutil.copytree(run / "checkpoints" / "initial", tmp_path / "mine" / "checkpoints" / "best", dirs_exist_ok=True)
    load.cache_clear()
    with pytest.raises(ValueError, match="mine changed while it was measured; expected a checkpoint that stays"):
        measure(task)


def test_the_digest_knows_the_models_code_and_the_loss(run, tmp_path, monkeypatch):
    file = tmp_path / "net.py"
    code = "from torch import nn\ndef model(num_classes):\n    "
    code += "return nn.Sequential(nn.Flatten(), nn.Linear(64, num_classes))\n"
    file.write_text(code)
    words = ["--dataset", "digits", "--epochs", "1", "--batch-size", "512", "--name", "u", "--model", f"{file}:model"]
    assert main(["train", *words, "--results-dir", str(tmp_path)]) == 0
    place = Place(tmp_path / "u", ("train",), Sampling(samples=50), "cpu", (("model", f"{file}:model"),))
    found = []
    for text in (code, code.replace("nn.Flatten()", "nn.Flatten(0 + 1)"), code):  # the same weights, other code
        file.write_text(text)
        load.cache_clear()
        found.append(load(place).digest)
    assert found[0] == found[2] != found[1]


def test_the_samples_digest_does_not_depend_on_the_memory_that_is_free(run, monkeypatch):
    place = Place(run, ("train",), Sampling(), "cpu")
    found = []
    for free in (1 << 40, 60_000, 90_000):
        monkeypatch.setattr(samples, "free_bytes", lambda _device, free=free: free)
        load.cache_clear()
        found.append(load(place).samples_digest)
    assert len(set(found)) == 1
    load.cache_clear()
