"""The commands that help to choose: diagnose, scan and tune, on real data."""

import json
import re
import shutil

import pytest
import torch

from smoothout.cli.compare import read_arms
from smoothout.cli.main import main
from smoothout.cli.tune import Search, arms_of, resolution
from smoothout.measuring import diagnosis
from smoothout.measuring.diagnosis import steps
from smoothout.results.scan import Scan
from smoothout.train import methods
from smoothout.train.config import Settings
from smoothout.train.run import prepare
from smoothout.tuning.space import Interval


def said(words, capsys):
    try:
        status = main([str(word) for word in words])
    except SystemExit as ended:  # tyro's, of a mistake in the options
        status = ended.code
    done = capsys.readouterr()
    return status, done.out + done.err


@pytest.fixture(scope="session")
def short_run(tmp_path_factory):
    """Four updates an epoch, so that noise and gradients have ghost batches."""
    folder = tmp_path_factory.mktemp("choosing")
    words = ["--dataset", "digits", "--batch-size", "400", "--ghost-batch-size", "100", "--epochs", "3"]
    assert main(["train", *words, "--results-dir", str(folder), "--name", "run"]) == 0
    return folder / "run"


def test_scan(short_run, tmp_path, capsys):
    status, text = said(["scan", short_run, "--samples", 200, "--output", tmp_path / "scan"], capsys)
    assert status == 0
    assert "200 train samples" in text
    assert text.count("worth trying: ") == 2
    record = json.loads((tmp_path / "scan.json").read_text())
    assert [each["scale"] for each in record] == ["none", "filter"]
    assert (tmp_path / "scan.png").read_bytes().startswith(b"\x89PNG")
    assert (tmp_path / "scan.pdf").is_file()
    marked = [line for line in text.splitlines() if line.startswith("│") and "worth trying" in line]
    worth = [p for each in record for p in each["points"] if each["low"] <= p["strength"] <= each["high"]]
    assert len(marked) == len(worth)


def test_scan_of_initial_weights(capsys):
    words = ["scan", "--model", "mlp", "--dataset", "digits", "--samples", 100, "--scale", "filter"]
    status, text = said(words, capsys)
    assert status == 0
    assert "that of guessing" in text


@pytest.mark.parametrize(
    "words, message",
    [
        (["scan"], "no checkpoint is named and no model; expected one of them"),
        (["scan", "{run}", "--scale"], "scale is empty"),
        (["scan", "{run}", "--pairs", "1"], "pairs is 1; expected a whole number >= 2"),
        (["scan", "{run}/nowhere"], "is no checkpoint; expected a folder"),
        (["diagnose", "{run}", "--seeds", "1"], "the seeds are \\(1,\\); expected two or more"),
        (["diagnose", "{run}/checkpoints"], "is neither a run nor a checkpoint; expected a folder such as runs/NAME"),
        (["diagnose", "{run}/config.json"], "is a file, which does not say how it was trained"),
        (
            ["tune", "--method", "lpf", "--strength", "0.1", "--over", "scale"],
            "scale is searched over and the method lpf",
        ),
        (["tune", "--over", "depth"], "what is searched over is 'depth'; expected one of"),
        (["tune", "--trials", "0"], "trials is 0; expected a whole number >= 1"),
        (["tune", "--strength", "auto", "--over", "strength"], "strength is 'auto' and searched over"),
        (["tune", "--method", "sam", "--over", "strength"], "the method sam, which has no noise"),
        (["tune", "--over", "lr"], "both arms would be without noise. Add strength to --over"),
        (["tune", "--over", "lr", "strength", "--range", "lr=0.1-0.5"], "lr is searched over and may not be '0.1-0.5'"),
        (
            ["tune", "--over", "strength", "scale", "--range", "scale=none,filtr"],
            "may not be 'filtr': scale is 'filtr'",
        ),
        (["train", "--method", "lpf", "--strength", "auto"], "the method lpf, whose schedule 'cosine' would undo"),
        (["tune", "--strength", "auto", "--over", "noise_schedule"], "may not be 'anneal': .*Leave --noise-schedule"),
        (
            ["tune", "--optimizer", "Adagrad", "--strength", "0.1", "--over", "momentum", "--dataset", "digits"],
            "momentum is searched over and Adagrad has none",
        ),
    ],
)
def test_mistakes(words, message, short_run, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    status, text = said([word.replace("{run}", str(short_run)) for word in words], capsys)
    assert status == 2
    assert re.search(message, " ".join(text.split())), text
    assert not list(tmp_path.iterdir())


def test_diagnose(short_run, capsys):
    words = ["diagnose", short_run, "--epochs", 1, "--seeds", 300, 301, "--samples", 200]
    status, text = said(words, capsys)
    assert status == 0
    assert "gradient noise scale, about the critical batch size" in text
    assert "twice the epochs" in text
    assert "1. " in text
    assert "doubt: " in text
    record = json.loads((short_run / "diagnosis.json").read_text())
    kinds = [effect["kind"] for effect in record["effects"]]
    assert kinds.count("updates") == 1
    assert kinds.count("tuning") == 4  # of four updates a warm-up would be one
    assert "noise" in kinds
    assert all(effect["difference"]["count"] == 2 for effect in record["effects"])
    results = list((short_run / "diagnosis").rglob("result.json"))
    made = {path: path.stat().st_mtime_ns for path in results}
    assert len(made) == 2 * (1 + len(kinds))
    assert said(words, capsys)[1].splitlines()[-1] == text.splitlines()[-1]
    assert {path: path.stat().st_mtime_ns for path in results} == made  # finished trials are kept


@pytest.mark.parametrize("method", ["smoothout", "momentum_sam", "sam", "ema"])
def test_what_is_tried_goes_with_the_method(method):
    settings = Settings().replace(dataset="digits", batch_size=400, ghost_batch_size=100, epochs=2, method=method)
    scans = [Scan("none", (), 0.01, 0.04, ""), Scan("filter", (), 0.1, 0.4, "")]
    tried = dict(steps(settings, 80, 1.0, scans))
    for _, changed in tried.values():
        methods.check(changed)
    assert sum(kind == "noise" for kind, _ in tried.values()) == (0 if method in methods.RHO else 2)


def test_a_search_starts_from_the_models_regime(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "net.py").write_text(NET)
    settings = Settings().replace(dataset="digits", model="net.py:net", ghost_batch_size=100, batch_size=400)
    [noisy, plain] = arms_of(settings, Search(over=("lr", "weight_decay", "strength")))
    assert plain.space.start(plain.settings) == {"lr": 0.003, "weight_decay": 0.02}
    assert plain.space.range("lr", plain.settings)[1] == Interval(0.003 / 10, 0.003 * 10)
    assert noisy.space.start(noisy.settings)["lr"] == 0.003


def test_a_value_that_the_method_refuses_is_left_out():
    settings = Settings().replace(dataset="digits", method="momentum_sam")
    [arm, plain] = arms_of(settings, Search(over=("momentum", "rho")))
    assert 0.0 not in arm.space.range("momentum", arm.settings)[1].values
    assert 0.0 in plain.space.range("momentum", plain.settings)[1].values


def test_twice_the_epochs_stretches_the_regime(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "net.py").write_text(NET)
    settings = Settings().replace(dataset="digits", model="net.py:net", ghost_batch_size=100, batch_size=400, epochs=4)
    changes = dict(steps(settings, 80, 1.0, []))
    _, longer = changes["twice the epochs"]
    assert [phase.lr for phase in prepare(longer).plan.phases] == [0.003] * 4 + [0.001] * 4


NET = """
from torch import nn

def net(num_classes):
    made = nn.Sequential(nn.Flatten(), nn.Linear(64, num_classes))
    made.regime = {0: {"optimizer": "SGD", "lr": 0.003, "weight_decay": 0.02}, 2: {"lr": 0.001}}
    return made
"""


def test_shorter_trials_of_a_regime_are_refused(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "net.py").write_text(NET)
    words = ["--dataset", "digits", "--batch-size", "400", "--ghost-batch-size", "100", "--epochs", "2", "--name", "r"]
    assert said(["train", "--model", "net.py:net", *words], capsys)[0] == 0
    status, text = said(["diagnose", "runs/r", "--model", "net.py:net", "--epochs", "1"], capsys)
    assert status == 2
    assert "has a regime for 2, which a shorter trial would cut off" in " ".join(text.split())


def test_a_run_of_small_batches_is_diagnosed(tmp_path, capsys):
    words = ["--dataset", "digits", "--batch-size", 12, "--ghost-batch-size", 12, "--epochs", 1]
    assert said(["train", *words, "--results-dir", tmp_path, "--name", "small"], capsys)[0] == 0
    status, text = said(["diagnose", tmp_path / "small", "--no-trials", "--samples", 100], capsys)
    assert status == 0
    assert "gradient noise scale" in text


def test_a_warm_up_is_that_of_the_trial():
    settings = Settings().replace(dataset="digits", batch_size=400, ghost_batch_size=100, epochs=40)
    short = diagnosis._short(
        dict(steps(settings, 40, 0.25, []))["warm-up over 2 updates"][1], settings, diagnosis.Trials(10)
    )
    assert short.optimization.warmup_steps == 2
    assert not [name for name in dict(steps(settings, 16, 0.1, [])) if "warm-up" in name]  # over one update it is none


def test_an_unfinished_run_has_the_updates_that_it_made(short_run, tmp_path, capsys):
    place = shutil.copytree(short_run / "checkpoints" / "last", tmp_path / "last")
    config = json.loads((place / "config.json").read_text())
    config["schedule"]["epochs"] = 30
    (place / "config.json").write_text(json.dumps(config))
    status, text = said(["diagnose", place, "--no-trials", "--samples", 200], capsys)
    assert status == 0
    assert re.search(r"updates: (\d+) of \d+ planned", text)
    made, planned = map(int, re.search(r"updates: (\d+) of (\d+) planned", text).groups())
    assert planned == 10 * made


@pytest.mark.parametrize("copied", [False, True])
def test_diagnose_a_checkpoint(copied, short_run, tmp_path, capsys):
    place, folder = short_run / "checkpoints" / "best", short_run
    if copied:
        place, folder = shutil.copytree(place, tmp_path / "best"), tmp_path
    status, text = said(["diagnose", place, "--no-trials", "--samples", 200], capsys)
    assert status == 0
    assert "sharpness, nats by which noise of scale filter raises the loss: " in text
    assert (folder / "diagnosis-of-best-without-trials.json").is_file()


def test_diagnose_without_trials(short_run, capsys):
    status, text = said(["diagnose", short_run, "--no-trials", "--samples", 200], capsys)
    assert status == 0
    assert "one change at a time" not in text
    assert "1. " in text


def test_what_a_hold_out_tells_apart():
    correct = torch.arange(2000) < 1520  # 76 %; the standard error of a mean of zeros and ones
    error = 100 * correct.double().std(correction=0) / len(correct) ** 0.5
    assert f"standard error of {error:.2f} points" in resolution(76.0, 2000)


def test_tune(tmp_path, capsys):
    words = ["tune", "--dataset", "digits", "--batch-size", 400, "--ghost-batch-size", 100, "--epochs", 2]
    words += ["--over", "lr", "strength", "--trials", 2, "--results-dir", tmp_path, "--name", "search"]
    status, text = said(words, capsys)
    assert status == 0
    assert "smoothout compare" in text
    assert "A hold-out of 144 samples gives" in text  # a tenth of digits' training samples
    arms, seeds = read_arms(tmp_path / "search" / "arms.toml")
    assert [arm.name for arm in arms] == ["noise", "no noise"]
    assert seeds == (0, 1, 2, 3, 4)
    assert arms[0].settings.noise.strength > 0
    assert arms[1].settings.noise.strength == 0
    assert arms[0].against == "no noise"
    assert (tmp_path / "search" / "strengths.png").read_bytes().startswith(b"\x89PNG")
    command = next(line for line in text.splitlines() if "  no noise: smoothout train" in line)
    assert f"--lr {arms[1].settings.optimization.lr}" in command
    assert arms[1].settings == Settings().replace(**arms[1].settings.given())
    assert said(words, capsys)[0] == 0  # a finished search is only reported
