"""Files of the original program load safely, for each of its kinds of network."""

import pickle

import pytest
import torch
from original_files import network, write

from smoothout.train import checkpoint
from smoothout.train.config import Settings
from smoothout.train.original_checkpoint import read, settings_of, translate

CIFAR, IMAGENET = (3, 32, 32), (3, 224, 224)
CASES = {
    "resnet": ("resnet", CIFAR, 10, {"config": {"depth": 8}}, {"config": "{'depth': 8}", "relu_noise": True}),
    "resnet on two GPUs": ("resnet", CIFAR, 10, {"config": {"depth": 8}}, {"config": "{'depth': 8}", "parallel": True}),
    "resnet for ImageNet": ("resnet", IMAGENET, 5, {}, {"form": "imagenet"}),
    "wide_WResNet": ("wide_resnet", CIFAR, 100, {"config": {"depth": 8}}, {"config": "{'depth': 8}"}),
    "alexnetv2": ("alexnetv2", (3, 63, 63), 3, {}, {}),
    "mnist_f1": ("mnist_f1", (1, 28, 28), 10, {}, {}),
}


@pytest.mark.parametrize("case", CASES)
def test_weights_come_back(case, tmp_path):
    name, shape, classes, options, form = CASES[case]
    saved = network(name, shape, classes, **options)
    named = case if case.startswith("wide") else name
    path = write(tmp_path / "model_best.pth.tar", named, saved, **form)
    raw = torch.load(path, map_location="cpu", weights_only=True)["state_dict"]
    assert not any(key.endswith("num_batches_tracked") for key in raw)  # the fixture is of that age
    if "resnet" in case:
        assert any("feats.3." in key or "feats.4." in key for key in raw)

    found = read(path)
    assert (found.model, found.epoch) == (name, 90)
    assert found.config == options.get("config", {})
    loaded = network(name, shape, classes, **options)
    with torch.no_grad():
        for value in loaded.parameters():
            value.zero_()
    checkpoint.load_weights(path, loaded)
    for key, value in loaded.state_dict().items():
        assert torch.equal(value, saved.state_dict()[key]), key


def test_settings_are_those_of_the_file(tmp_path):
    model = network("resnet", CIFAR, 20, config={"depth": 8})
    config = "{'depth': 8, 'num_classes': 20, 'noise': 0.1, 'input_size': 32, 'dataset': 'cifar100'}"
    path = write(tmp_path / "model_best.pth.tar", "resnet", model, config=config)
    expected = Settings().replace(
        model="resnet", model_config="{'depth': 8}", num_classes=20, relu_noise=0.1, input_size=32, dataset="cifar100",
        holdout=0.0,
    )  # fmt: skip
    assert checkpoint.load_settings(path) == expected
    assert checkpoint.load_settings(path, dataset="cifar10") == expected.replace(dataset="cifar10")


def test_outputs_are_those_of_the_weights(tmp_path):
    path = write(tmp_path / "model_best.pth.tar", "mnist_f1", network("mnist_f1", (1, 28, 28), 13))
    assert checkpoint.load_settings(path, dataset="mnist").network.num_classes == 13


def test_the_data_must_be_named(tmp_path):
    path = write(tmp_path / "model_best.pth.tar", "mnist_f1", network("mnist_f1", (1, 28, 28), 10))
    with pytest.raises(ValueError, match="does not say which data it was trained on. Name them, such as --dataset"):
        settings_of(read(path), None, path)


class Malicious:
    def __reduce__(self):
        return exec, ("raise SystemExit('code of a checkpoint has run')",)


def test_code_in_a_file_is_not_run(tmp_path):
    path = tmp_path / "model_best.pth.tar"
    torch.save({"epoch": 1, "model": "resnet", "config": "", "state_dict": Malicious()}, path)
    with pytest.raises(ValueError, match="is no checkpoint that can be read safely"):
        read(path)
    path.write_bytes(pickle.dumps(Malicious(), 2))
    with pytest.raises(ValueError, match="is no checkpoint that can be read safely"):
        read(path)


def test_other_files_are_refused(tmp_path):
    path = tmp_path / "other.pt"
    torch.save({"weights": torch.zeros(1)}, path)
    with pytest.raises(ValueError, match="holds weights; expected config, epoch, model, state_dict"):
        read(path)
    torch.save(torch.zeros(1), path)
    with pytest.raises(ValueError, match="holds Tensor; expected config"):
        read(path)
    path.write_text("no pickle")
    with pytest.raises(ValueError, match="Expected a model_best.pth.tar of the original program"):
        read(path)


def test_damaged_files_are_refused(tmp_path):
    path = write(tmp_path / "model_best.pth.tar", "mnist_f1", network("mnist_f1", (1, 2, 2), 3))
    whole = path.read_bytes()
    for length in (0, 1, 100, 400, 3000, len(whole) // 2, len(whole) - 1):
        path.write_bytes(whole[:length])
        with pytest.raises(ValueError, match="cannot be read|can be read safely") as told:
            read(path)
        assert "weights_only" not in str(told.value)  # no advice to load it unsafely


GOOD = {"epoch": 1, "model": "resnet", "config": "", "state_dict": {}}


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"epoch": None}, "holds epoch: NoneType, model: str, state_dict: dict; expected a number, a name and a dict"),
        ({"state_dict": []}, "holds epoch: int, model: str, state_dict: list; expected"),
        ({"state_dict": {"weight": 1}}, "expected a number, a name and a dict of tensors"),
        ({"config": "depth=20"}, "has the model config 'depth=20'; expected a dict"),
        ({"config": "[1]"}, "has the model config .* expected a dict"),
    ],
)
def test_other_contents_are_refused(change, text, tmp_path):
    torch.save(GOOD | change, tmp_path / "model_best.pth.tar")
    with pytest.raises(ValueError, match=text):
        read(tmp_path / "model_best.pth.tar")


def test_layers_that_are_called_feats_stay():
    state = {"feats.0.weight": torch.ones(2), "head.weight": torch.zeros(2), "noise": torch.ones(1)}
    assert translate(state).keys() == state.keys()
    assert translate(state | {"conv.weight": torch.ones(2)}).keys() == {"head.weight", "noise", "conv.weight"}


def test_half_precision_becomes_single():
    state = {"bn.running_mean": torch.ones(2, dtype=torch.float16), "conv.weight": torch.ones(2, dtype=torch.float16)}
    assert {key: value.dtype for key, value in translate(state).items()} == {
        "bn.running_mean": torch.float32,
        "bn.num_batches_tracked": torch.int64,
        "conv.weight": torch.float32,
    }


def test_another_model_is_told(tmp_path):
    path = write(tmp_path / "model_best.pth.tar", "mnist_f1", network("mnist_f1", (1, 28, 28), 10))
    with pytest.raises(ValueError, match=r"was saved from another model: missing .*bn1.bias"):
        checkpoint.load_weights(path, network("resnet", CIFAR, 10, config={"depth": 8}))
