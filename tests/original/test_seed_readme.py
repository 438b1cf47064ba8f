"""The README of the original program: its four usage lines, its data folder, and its model file."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from original_files import network, write
from PIL import Image
from published_files import publish, write_cifar
from safetensors.torch import load_file

from smoothout.cli.main import main
from smoothout.original.__main__ import run
from smoothout.results.landscape import Line
from smoothout.train.evaluation import Conditions, evaluate

DATA = Path("pytorch-gen/cifar10")

LINES = {
    "alexnet": "evaluate.py --model alexnet --dataset imagenet -b 100 --gpus 1 "
    "--evaluate TrainingResults/2018-03-17_11-28-33/model_best.pth.tar --ss 0.006 --mode train --no-augment",
    "line": "visualize_sharpness.py --model resnet --dataset cifar10 -b 100 --gpus 1 "
    "--evaluate TrainingResults/2018-02-20_19-47-52/model_best.pth.tar  "
    "--slave-evaluate TrainingResults/2018-02-20_19-47-18/model_best.pth.tar  --no-visualize_train",
    "direction": "visualize2_sharpness.py --model resnet --dataset cifar10 -b 100 --gpus 1 "
    "--evaluate TrainingResults/2018-02-20_19-47-18/model_best.pth.tar  --no-visualize_train "
    "--alpha=-0.3:0.02:0.31",
    "sharpness": "measure_sharpness.py --model cifar100_shallow --dataset cifar100 --b 100 --gpus 1 "
    "--evaluate TrainingResults/2018-02-20_14-05-28/model_best.pth.tar",
}


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    return tmp_path


def photographs(folder, count=2):
    generator = np.random.default_rng(0)
    for split in ("train", "val"):
        for name in ("n01440764", "n01443537"):
            (folder / split / name).mkdir(parents=True)
            for sample in range(count):
                pixels = generator.integers(0, 256, (240 + 20 * sample, 300, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(folder / split / name / f"{sample}.jpg")


def test_the_evaluate_line(here, capsys):
    photographs(here / "pytorch-gen" / "imagenet")
    model = network("alexnet", (3, 224, 224), 1000)
    words = LINES["alexnet"].split()
    write(Path(words[words.index("--evaluate") + 1]), "alexnet", model)
    assert run([*words, "-j", "0"]) == 0
    printed = capsys.readouterr()
    assert "notice: torch finds no CUDA device; this runs on the CPU." in printed.err
    assert (
        "= smoothout evaluate TrainingResults/2018-03-17_11-28-33/model_best.pth.tar --dataset imagenet" in printed.out
    )
    [row] = [line for line in printed.out.splitlines() if "│ train" in line]
    assert row.split("│")[2].strip() == "4"  # all training samples: none are held out


def checkpoints(name, here, monkeypatch):
    """Files of the original where the line names them, and its data."""
    folder = here / "pytorch-gen" / ("cifar100" if name == "sharpness" else "cifar10")
    base = "cifar-100-python" if name == "sharpness" else "cifar-10-batches-py"
    write_cifar(folder / base, "CIFAR100" if name == "sharpness" else "CIFAR10")
    publish(monkeypatch, "CIFAR100" if name == "sharpness" else "CIFAR10", folder / base)
    words = LINES[name].split()
    for index, word in enumerate(words):
        if word in ("--evaluate", "--slave-evaluate"):
            model = words[words.index("--model") + 1]
            torch.default_generator.manual_seed(index)
            classes = 100 if name == "sharpness" else 10
            write(Path(words[index + 1]), model, network(model, (3, 32, 32), classes))
    return words


def test_the_line_between_two_checkpoints(here, monkeypatch, capsys):
    words = checkpoints("line", here, monkeypatch)
    assert run(words) == 0
    printed = capsys.readouterr().out
    assert printed.startswith("= smoothout landscape TrainingResults/")
    [path] = here.glob("TrainingResults/*/line-test.npz")
    line = Line.load(path)
    assert len(line.alphas) == 31
    assert line.bn == "interpolate"
    for mark, flag in zip(line.marks, ("--evaluate", "--slave-evaluate"), strict=True):
        [own] = evaluate(Path(words[words.index(flag) + 1]), ["test"], Conditions(), dataset="cifar10", data_dir=DATA)
        assert mark.loss == pytest.approx(own.risk.loss, rel=1e-6)
        assert mark.path_loss == mark.loss
    assert not list(here.glob("TrainingResults/*/line-train.npz"))


def test_the_random_direction(here, monkeypatch, capsys):
    words = checkpoints("direction", here, monkeypatch)
    assert run(words) == 0
    assert "31 points, test" in capsys.readouterr().out
    [path] = here.glob("TrainingResults/*/line-test.npz")
    line = Line.load(path)
    assert line.alphas == tuple((index - 15) / 50 for index in range(31))
    [own] = evaluate(
        Path(words[words.index("--evaluate") + 1]), ["test"], Conditions(), dataset="cifar10", data_dir=DATA
    )
    assert line.losses[15] == pytest.approx(own.risk.loss, rel=1e-6)
    assert [path.name for path in sorted(here.glob("TrainingResults/*/line.*"))] == ["line.pdf", "line.png"]


def test_the_sharpness_of_a_checkpoint(here, monkeypatch, capsys):
    assert run(checkpoints("sharpness", here, monkeypatch)) == 0
    printed = capsys.readouterr()
    assert "measured on the training samples, as the paper defines it" in printed.err
    assert "box eps = 0.0005: phi (%)" in printed.out
    [path] = here.glob("TrainingResults/*/sharpness.json")
    [row] = json.loads(path.read_text())["measures"]
    assert row["record"]["value"] > 0
    assert row["record"]["center"]["weights"] == 1_405_860


def test_training_on_its_default_data(here, monkeypatch, capsys):
    write_cifar(here / "pytorch-gen" / "cifar10" / "cifar-10-batches-py", "CIFAR10")
    publish(monkeypatch, "CIFAR10", here / "pytorch-gen" / "cifar10" / "cifar-10-batches-py")
    words = ["main_gbn.py", "--epochs", "1", "-b", "32", "-mb", "16", "--model_config", "{'depth': 8}", "--save", "a"]
    assert run([*words, "--ss", "0.01"]) == 0
    log = Path("TrainingResults/a/log.txt").read_text()
    assert "data: cifar10 (data folder: pytorch-gen), 45 train, 5 hold-out, 10 test samples of 3x32x32" in log
    assert "optimizer: SGD (the model's regime), momentum 0.9 (the model's regime)" in log
    assert "learning rate: 0.1414 = 0.1 (the model's regime) by rule 'sqrt' from base batch 16" in log


# The example of the original's README, its `...` filled in, imports added, and the stray space before its last
# function taken out, with which Python would not read it.
EXAMPLE = """
from torch import nn
from torchvision import transforms

class Model(nn.Module):

    def __init__(self, num_classes=1000):
        super(Model, self).__init__()
        self.model = nn.Sequential(nn.AdaptiveAvgPool2d(4), nn.Flatten(), nn.Linear(48, num_classes))

        self.regime = {
            0: {'optimizer': 'SGD', 'lr': 1e-2,
                'weight_decay': 5e-4, 'momentum': 0.9},
            15: {'lr': 1e-3, 'weight_decay': 0}
        }

        self.input_transform = {
            'train': transforms.Compose([transforms.RandomCrop(200, pad_if_needed=True), transforms.ToTensor()]),
            'eval': transforms.Compose([transforms.CenterCrop(200), transforms.ToTensor()])
        }
    def forward(self, inputs):
        return self.model(inputs)

def model(**kwargs):
        return Model()
"""


def test_its_model_file_runs(here):
    photographs(here / "data" / "imagenet", count=6)
    (here / "mine.py").write_text(EXAMPLE)
    words = ["--dataset", "imagenet", "--model", "mine.py:model", "--batch-size", "4", "--ghost-batch-size", "2"]
    words += ["--epochs", "16", "--evaluate-every", "16", "--workers", "0", "--lr-rule", "none"]
    assert main(["train", *words, "--name", "mine"]) == 0
    log = Path("runs/mine/log.txt").read_text()
    assert "samples of 3x200x200" in log
    assert "weight_decay 0.0005 (the model's regime)" in log
    assert "then: from epoch 16 lr 0.001 (the model's regime), weight_decay 0 (the model's regime)" in log
    rates = [line.split(",")[10] for line in Path("runs/mine/metrics.csv").read_text().splitlines()]
    assert rates[0] == "lr"
    assert [float(rate) for rate in rates[1:]] == [1e-2] * 15 + [1e-3]


def test_an_alexnet_trains_by_its_own_transform(here):
    photographs(here / "data" / "imagenet", count=4)
    words = ["--dataset", "imagenet", "--model", "alexnet", "--batch-size", "4", "--ghost-batch-size", "2"]
    words += ["--epochs", "1", "--workers", "0", "--num-classes", "1000", "--strength", "0.001"]
    # Its own transform crops to the input size after resizing by 256 / 224.
    assert main(["train", *words, "--input-size", "72", "--name", "small"]) == 0
    log = Path("runs/small/log.txt").read_text()
    assert "samples of 3x72x72, 2 classes" in log
    assert "weight_decay 0.0005 (the model's regime)" in log
    assert len(load_file("runs/small/checkpoints/last/model.safetensors")["classifier.8.bias"]) == 1000


def test_an_old_checkpoint_is_evaluated_and_trained_on(here, capsys, monkeypatch):
    write_cifar(here / "data" / "cifar-10-batches-py", "CIFAR10")
    publish(monkeypatch, "CIFAR10", here / "data" / "cifar-10-batches-py")
    old = network("resnet", (3, 32, 32), 10, config={"depth": 8})
    path = write(here / "model_best.pth.tar", "resnet", old, config="{'depth': 8}", relu_noise=True)
    assert main(["evaluate", str(path), "--dataset", "cifar10", "--split", "holdout"]) == 2
    assert "'holdout' has no samples; from a checkpoint of the original program" in capsys.readouterr().err
    assert main(["evaluate", str(path), "--dataset", "cifar10", "--split", "all"]) == 0
    printed = capsys.readouterr().out
    assert "│ test  │      10 │" in printed
    assert "│ train │      50 │" in printed
    assert "holdout" not in printed
    assert run(["evaluate", "--evaluate", str(path), "-b", "5", "--ss", "0.01"]) == 0
    assert "│ test  │      10 │" in capsys.readouterr().out
    words = ["train", "--dataset", "cifar10", "--model", "resnet", "--model-config", "{'depth': 8}", "--epochs", "1"]
    assert main([*words, "--batch-size", "32", "--ghost-batch-size", "16", "--weights", str(path), "--name", "on"]) == 0
    assert f"from {path}" in Path("runs/on/log.txt").read_text()
