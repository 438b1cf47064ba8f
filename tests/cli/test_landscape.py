"""The command, run in this process on a small run."""

import json
import math
import shutil

import numpy as np
import pytest
from safetensors.torch import load_file, save_file

from smoothout.cli import landscape as command
from smoothout.cli.main import main
from smoothout.measuring import landscape as measuring
from smoothout.results.landscape import Line, Plane
from smoothout.train.evaluation import Conditions, evaluate

LINE = "--alpha=-0.5:0.5:1.01"


@pytest.fixture
def runs(digits_runs):
    return digits_runs


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def only(here, pattern):
    [path] = here.glob(f"runs/*/{pattern}")
    return path


def test_a_line_between_two_checkpoints_ends_at_their_own_losses(runs, here, capsys):
    assert main(["landscape", str(runs / "plain/0"), "--to", str(runs / "plain/1"), LINE]) == 0
    printed = capsys.readouterr().out
    assert "line from plain/0 to plain/1: 4 points, train, test" in printed
    assert "train: barrier" in printed
    for split in ("train", "test"):
        line = Line.load(only(here, f"line-{split}.npz"))
        assert line.alphas == (-0.5, 0.0, 0.5, 1.0)
        assert line.bn == "interpolate"
        # The second run held out other training samples.
        for alpha, seed in ((1, "0"), (3, "1")) if split == "test" else ((1, "0"),):
            [own] = evaluate(runs / "plain" / seed, [split], Conditions())
            assert line.losses[alpha] == pytest.approx(own.risk.loss, rel=1e-6)
            assert line.errors1[alpha] == pytest.approx(own.risk.error1)
        assert line.samples == own.risk.samples
        assert all(line.finished)
    for name in ("line.png", "line.pdf"):
        assert only(here, name).stat().st_size > 1000


def test_a_line_in_a_random_direction_goes_through_the_checkpoint(runs, here, capsys):
    words = ["landscape", str(runs / "plain/0"), LINE, "--splits", "test"]
    assert main(words) == 0
    assert main([*words, "--direction", "uniform", "--one-dimensional", "scale", "--name", "other"]) == 0
    [own] = evaluate(runs / "plain/0", ["test"], Conditions())
    lines = [Line.load(path) for path in here.glob("runs/*/line-test.npz")]
    assert [line.losses[1] for line in lines] == pytest.approx([own.risk.loss] * 2, rel=1e-6)
    assert lines[0].losses[2] != lines[1].losses[2]
    assert not list(here.glob("runs/*/line-train*"))
    capsys.readouterr()


def test_it_says_how_many_points_there_are(runs, here, capsys):
    words = ["landscape", str(runs / "plain/0"), "--samples", "20", "--splits", "test"]
    assert main([*words, "--alpha=-0.3:0.02:0.31"]) == 0
    assert ": 31 points, test, in runs/landscape-" in capsys.readouterr().out
    assert main(words) == 0
    assert ": 51 points, test, in runs/landscape-" in capsys.readouterr().out
    assert main([*words, "--to", str(runs / "plain/1")]) == 0
    assert ": 31 points, test, in runs/landscape-" in capsys.readouterr().out
    assert main([*words, "--to", str(runs / "plain/1"), "--mode", "sin"]) == 0
    assert ": 21 points, test, in runs/landscape-" in capsys.readouterr().out


def test_a_plane_that_is_not_square(runs, here, capsys):
    words = [
        "landscape",
        str(runs / "plain/0"),
        "--plane",
        "5x3",
        "--extent",
        "0.5",
        "--splits",
        "test",
        "--samples",
        "50",
    ]
    assert main([*words, "--vtp"]) == 0
    plane = Plane.load(only(here, "plane-test.npz"))
    assert plane.xs == (-0.5, -0.25, 0.0, 0.25, 0.5)
    assert plane.ys == (-0.5, 0.0, 0.5)
    assert (len(plane.losses), len(plane.losses[0])) == (3, 5)
    assert plane.losses[1][2] == plane.marks[0].loss
    for name in ("plane-test.png", "plane-test.pdf", "plane-test.vtp"):
        assert only(here, name).stat().st_size > 500
    assert "5 x 3 points" in capsys.readouterr().out


def test_a_plane_through_three_checkpoints(runs, here, capsys):
    others = [str(runs / "plain/1"), str(runs / "noisy/0")]
    assert main(["landscape", str(runs / "plain/0"), "--to", *others, "--plane", "4x3", "--splits", "test"]) == 0
    plane = Plane.load(only(here, "plane-test.npz"))
    assert [mark.name for mark in plane.marks] == ["plain/0", "plain/1", "noisy/0"]
    for mark in plane.marks:
        [own] = evaluate(runs / mark.name, ["test"], Conditions())
        assert mark.loss == pytest.approx(own.risk.loss, rel=1e-6)
        assert mark.on_path
    capsys.readouterr()


def test_a_plane_along_the_hessians_eigenvectors(runs, here, capsys):
    words = ["landscape", str(runs / "plain/0"), "--axes", "hessian", "--samples", "100", "--splits", "train"]
    assert main([*words, "--plane", "3x3"]) == 0
    plane = Plane.load(only(here, "plane-train.npz"))
    assert plane.lengths == pytest.approx((1, 1), rel=1e-4)
    assert main([*words, "--alpha=-1:1:1.01"]) == 0
    capsys.readouterr()


def test_running_statistics_taken_anew_on_the_training_samples(runs, here, capsys):
    words = ["landscape", str(runs / "plain/0"), "--to", str(runs / "plain/1"), LINE, "--splits", "test"]
    assert main([*words, "--bn", "recompute"]) == 0
    line = Line.load(only(here, "line-test.npz"))
    assert line.bn == "recompute"
    assert any("own running statistics" in doubt for doubt in line.doubts)
    assert "(!)" in capsys.readouterr().out


def test_interrupted_it_keeps_the_finished_points_and_goes_on(runs, here, capsys, monkeypatch):
    words = ["landscape", str(runs / "plain/0"), LINE, "--splits", "test", "--name", "mine"]
    real, made = measuring.measure, []

    def interrupted(task):
        if len(made) == 2:
            raise KeyboardInterrupt
        made.append(task)
        return real(task)

    monkeypatch.setattr(measuring, "measure", interrupted)
    assert main(words) == 130
    assert int(np.load(here / "runs/mine/points.npz")["finished"].sum()) == 2
    monkeypatch.setattr(measuring, "measure", lambda task: made.append(task) or real(task))
    assert main(words) == 0
    measured = [point for task in made for point in task.points]
    assert len(measured) == len(set(measured)) == 4  # none twice
    whole = Line.load(here / "runs/mine/line-test.npz")
    assert main([*words[:-1], "whole"]) == 0
    assert Line.load(here / "runs/whole/line-test.npz").losses == whole.losses
    capsys.readouterr()


def test_shards_are_put_together_by_a_start_without(runs, here, capsys, monkeypatch):
    words = ["landscape", str(runs / "plain/0"), LINE, "--splits", "test", "--name", "mine"]
    assert main([*words, "--shard", "1/2"]) == 0
    assert "shard 1/2 is finished; a start without --shard puts all together." in capsys.readouterr().out
    assert not (here / "runs/mine/line-test.npz").exists()
    assert main([*words, "--shard", "2/2"]) == 0
    monkeypatch.setattr(measuring, "measure", None)  # nothing is left to measure
    assert main(words) == 0
    assert all(Line.load(here / "runs/mine/line-test.npz").finished)


def test_two_workers_give_the_same_numbers(runs, here, capsys):
    words = ["landscape", str(runs / "plain/0"), "--to", str(runs / "plain/1"), LINE, "--splits", "test"]
    assert main([*words, "--name", "one"]) == 0
    assert main([*words, "--name", "two", "--jobs", "2"]) == 0
    one, two = (Line.load(here / f"runs/{name}/line-test.npz").losses for name in ("one", "two"))
    assert one == pytest.approx(two, rel=1e-6)
    capsys.readouterr()


def test_a_checkpoint_that_changed_is_never_mixed_with_old_points(runs, here, capsys):
    shutil.copytree(runs / "plain/0", here / "mine")
    words = ["landscape", "mine", LINE, "--splits", "test", "--samples", "50", "--name", "a"]
    assert main(words) == 0
    place = here / "mine/checkpoints/best/model.safetensors"
    save_file(
        {name: value * 1.5 if value.is_floating_point() else value for name, value in load_file(place).items()}, place
    )
    measuring.load.cache_clear()  # as in a process of its own
    measuring.axes_of.cache_clear()
    measuring.digest_of.cache_clear()
    assert main(words) == 2
    assert "holds points of another landscape: other weights" in capsys.readouterr().err


def test_the_settings_and_versions_are_in_the_file(runs, here, capsys):
    assert main(["landscape", str(runs / "plain/0"), LINE, "--splits", "test"]) == 0
    about = json.loads(only(here, "landscape.json").read_text())
    assert about["command"].startswith(f"smoothout landscape {runs}/plain/0 --alpha=-0.5:0.5:1.01")
    assert (about["splits"], about["sampling"]["samples"], about["checkpoints"]) == (
        ["test"],
        None,
        [f"{runs}/plain/0"],
    )
    content = json.loads(only(here, "line-test.json").read_text())
    assert content["seed"] == 0
    assert {"smoothout", "torch", "python"} <= content["versions"].keys()
    assert math.isfinite(content["seconds"])
    capsys.readouterr()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["{0}", "--to", "{conv}"], "are of different architectures, and no line joins them: "),
        (
            ["{0}", "--to", "{1}", "{2}", "{conv}"],
            "--to names 3 checkpoints; expected one for a line, or two for a plane",
        ),
        (["{0}", "--to", "{0}"], "a checkpoint is named twice; expected others than the first in --to"),
        (["{0}", "--alpha=1:0.1:-1"], "whose step has the wrong sign for its ends"),
        (["{0}", "--alpha=0:0:1"], "whose step of 0 never arrives"),
        (["{0}", "--plane", "21"], "plane is '21'; expected COLUMNSxROWS"),
        (["{0}", "--plane", "99999x99999"], "a plane of 99999 x 99999 points needs 4,999,900,000,500 bytes"),
        (["{0}", "--bn", "interpolate"], "bn is 'interpolate' on a random direction"),
        (["{0}", "--mode", "sin"], "--mode sin is of the line between two checkpoints"),
        (["{0}", "--axes", "hessian", "--to", "{1}"], "--axes hessian and --to contradict each other"),
        (["{0}", "--shard", "3/2"], "shard is '3/2'; expected I/N with 1 <= I <= N"),
        (["{0}", "--samples", "0"], "samples is 0; expected a whole number >= 1"),
        (["{0}/nothing"], "is no checkpoint; expected a folder"),
    ],
)
def test_bad_input(runs, capsys, monkeypatch, words, message):
    monkeypatch.setenv("COLUMNS", "400")
    names = ("plain/0", "plain/1", "noisy/0")
    filled = [word.format(*(runs / name for name in names), conv=runs / "conv") for word in words]
    try:
        status = main(["landscape", *filled])
    except SystemExit as stopped:  # of what is wrong with an option by itself
        status = stopped.code
    assert status == 2
    assert message in capsys.readouterr().err


def test_a_network_that_diverged_has_no_landscape(runs, here, capsys):
    shutil.copytree(runs / "plain/0", here / "bad")
    place = here / "bad/checkpoints/best/model.safetensors"
    save_file(
        {name: value * math.nan if value.is_floating_point() else value for name, value in load_file(place).items()},
        place,
    )
    assert main(["landscape", "bad", LINE]) == 2
    assert "1.weight has values that are not finite; expected numbers to look around from" in capsys.readouterr().err


def test_shapes():
    assert command.shape_of("51x21") == (51, 21)
    assert command.shard_of("2/8") == (2, 8)
    assert command.shard_of(None) is None
