"""The command, run in this process on a small run."""

import json
import shutil

import pytest

from smoothout.cli import sharpness as command
from smoothout.cli import side_by_side
from smoothout.cli.main import main
from smoothout.measuring import sharpness as measuring
from smoothout.results.sharpness import Center, NoiseSharpness, read_measure
from smoothout.train import checkpoint

QUICK = ["--samples", "200", "--strengths", "0.01", "0.1", "--draws", "4"]


@pytest.fixture
def runs(digits_runs):
    return digits_runs


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def stored(here):
    [path] = here.glob("runs/*/sharpness.json")
    return path, json.loads(path.read_text())["measures"]


def test_all_measures_of_two_arms_side_by_side(runs, here, capsys):
    arms = [str(runs / arm / seed) for arm in ("plain", "noisy") for seed in ("0", "1")]
    assert main(["sharpness", *arms, *QUICK, "--scale", "none"]) == 0
    printed = capsys.readouterr().out
    assert "plain (2 runs)" in printed
    assert "noisy (2 runs)" in printed
    assert "at the weights themselves, train samples" in printed
    for row in ("a = 0.01", "a = 0.1", "box eps = 0.0005: phi (%)", "ball rho = 0.05", "adaptive rho = 0.5"):
        assert row in printed
    assert "From the largest to the smallest" in printed
    path, rows = stored(here)
    assert str(path.relative_to(here)) in printed
    assert {row["measure"] for row in rows} == set(measuring.MEASURES)
    assert len(rows) == 4 * (2 + 5)
    assert {row["record"]["center"]["samples"] for row in rows} == {200}
    assert all(read_measure(row["kind"], row["record"]).center.loss > 0 for row in rows)


def test_interrupted_it_keeps_what_is_finished_and_goes_on(runs, here, capsys, monkeypatch):
    words = ["sharpness", str(runs / "plain" / "0"), *QUICK, "--measures", "noise", "--scale", "none"]
    real, made = measuring.measure, []

    def interrupted(task):
        if len(made) == 1:
            raise KeyboardInterrupt
        made.append(task)
        return real(task)

    monkeypatch.setattr(measuring, "measure", interrupted)
    assert main(words) == 130
    assert "What is finished is kept; the same command goes on." in capsys.readouterr().out
    _, rows = stored(here)
    assert len(rows) == 1
    first = rows[0]
    monkeypatch.setattr(measuring, "measure", lambda task: made.append(task) or real(task))
    assert main(words) == 0
    assert len(made) == 2  # one before the interrupt, one after
    assert first in stored(here)[1]
    capsys.readouterr()


def test_a_checkpoint_that_changed_is_measured_anew(runs, here, capsys):
    shutil.copytree(runs / "plain" / "0", here / "mine")
    words = ["sharpness", "mine", *QUICK, "--measures", "noise", "--scale", "none", "--name", "kept"]
    assert main(words) == 0
    before = {row["key"] for row in stored(here)[1]}
    place = here / "mine" / "checkpoints" / "best"
    weights = checkpoint.load_file(place / checkpoint.WEIGHTS)
    weights = {name: value * 2 if value.is_floating_point() else value for name, value in weights.items()}
    checkpoint.save_file(weights, place / checkpoint.WEIGHTS)
    measuring.load.cache_clear()  # a process of its own, as a user starts it
    assert main(words) == 0
    after = {row["key"] for row in stored(here)[1]}
    assert len(after) == 2 * len(before)
    capsys.readouterr()


def test_workers_give_the_same_numbers(runs, here, capsys):
    words = ["sharpness", str(runs / "plain" / "0"), *QUICK, "--measures", "noise,ball", "--scale", "filter"]
    assert main([*words, "--results-dir", "one"]) == 0
    assert main([*words, "--results-dir", "two", "--jobs", "2"]) == 0
    capsys.readouterr()
    one, two = (
        json.loads(next(here.glob(f"{name}/*/sharpness.json")).read_text())["measures"] for name in ("one", "two")
    )
    values = [{row["key"]: row["record"]["value"] for row in rows} for rows in (one, two)]
    assert values[0] == pytest.approx(values[1], rel=1e-5)


def test_a_list_of_the_original(here, tmp_path):
    path = tmp_path / "list.txt"
    path.write_text("# mine\ncifar10 resnet a/model_best.pth.tar\n\nmnist,mnist_f1,b/model_best.pth.tar\n")
    found = command.read_list(path)
    assert [(data, model, str(file)) for data, model, file in found] == [
        ("cifar10", "resnet", "a/model_best.pth.tar"),
        ("mnist", "mnist_f1", "b/model_best.pth.tar"),
    ]
    path.write_text("cifar10 resnet\n")
    with pytest.raises(ValueError, match="line 1 of .* is 'cifar10 resnet'; expected dataset, model and path"):
        command.read_list(path)
    path.write_text("\n")
    with pytest.raises(ValueError, match="names no checkpoint; expected lines: dataset model path"):
        command.read_list(path)
    with pytest.raises(FileNotFoundError, match="is not there; expected a file with lines"):
        command.read_list(tmp_path / "other")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "no checkpoint is named; expected some, or --list FILE"),
        (["{}", "--measures", "box,flatness"], "a measure is 'flatness'; expected one of adaptive, ball, box"),
        (["{}", "--samples", "0"], "samples is 0; expected a whole number >= 1"),
        (["{}", "--measures", "box", "--epsilon", "0"], "epsilon is 0"),
        (["{}", "--measures", "ball", "--radius", "-1"], "radius is -1"),
        (["{}", "--measures", "noise", "--strengths", "0"], "strength is 0"),
        (["{}", "{}"], "is named twice; expected each checkpoint once"),
        (["{}/nothing"], "is no checkpoint; expected a folder"),
    ],
)
def test_bad_input(runs, capsys, monkeypatch, words, message):
    monkeypatch.setenv("COLUMNS", "400")
    try:
        status = main(["sharpness", *(word.format(runs / "plain" / "0") for word in words)])
    except SystemExit as stopped:  # of what is wrong with an option by itself
        status = stopped.code
    assert status == 2
    assert message in capsys.readouterr().err


def test_a_network_that_diverged_has_no_sharpness(runs, here, capsys):
    shutil.copytree(runs / "plain" / "0", here / "bad")
    place = here / "bad" / "checkpoints" / "best" / checkpoint.WEIGHTS
    weights = checkpoint.load_file(place)
    checkpoint.save_file(
        {name: value * float("nan") if value.is_floating_point() else value for name, value in weights.items()}, place
    )
    assert main(["sharpness", "bad", *QUICK]) == 2
    assert "the loss at the weights themselves is nan; expected a finite number" in capsys.readouterr().err


def record(value, error, strength):
    center = Center(1.0, 0.0, 10, 5, 0.1)
    rest = {"error1_rise": 0.0, "error1_standard_error": 0.0, "scale": "none", "distribution": "uniform"}
    return NoiseSharpness(
        value,
        center,
        (),
        0.0,
        0,
        standard_error=error,
        strength=strength,
        relative_noise=0.1,
        pairs=20,
        perturbed=5,
        **rest,
    )


def test_a_curve_that_turns_is_called_a_reversal():
    part = [
        {"a": [record(1.0, 0.1, 0.01)], "b": [record(2.0, 0.1, 0.01)]},
        {"a": [record(3.0, 0.1, 0.02)], "b": [record(3.1, 0.1, 0.02)]},  # not told apart: no part of the reversal
        {"a": [record(9.0, 0.1, 0.03)], "b": [record(5.0, 0.1, 0.03)]},
    ]
    assert side_by_side.curve_words(part)[1:] == [
        "  a = 0.01: b, a",
        "  a = 0.02: b, a; not told apart: b and a",
        "  a = 0.03: a, b",
        "  reversal: a is above b at a = 0.03, below it at a = 0.01",
    ]
    assert not any("reversal" in line for line in side_by_side.curve_words(part[1:]))
