"""Commands started by torchrun in several processes give the files of the command alone."""

import contextlib
import io
import json
import os
import socket
import subprocess
import sys
import time
import traceback
from pathlib import Path

import numpy as np
import pytest
import spied_command

from smoothout import launch
from smoothout.cli.main import main
from smoothout.launch import Launched, launched
from smoothout.measuring import landscape, sharpness, subject
from smoothout.original.__main__ import run as run_original
from smoothout.results.landscape import Line, Plane
from smoothout.train import spread

TORCHRUN = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
QUICK = ["--samples", "100", "--draws", "2", "--scale", "none", "--device", "cpu"]


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def alone(here, capsys):
    """Run a command in this process."""

    def run(*words):
        forget()
        assert main(list(map(str, words))) == 0
        capsys.readouterr()

    return run


def forget():
    for cached in (subject.load, landscape.axes_of, landscape.digest_of, spread._connected, launch._store):
        cached.cache_clear()


def rows(folder):
    """What was measured, by key, without the time it took."""
    content = json.loads((folder / "sharpness.json").read_text())
    found = {row["key"]: row for row in content["measures"]}
    for row in found.values():
        del row["record"]["seconds"]
    return found


# -- by torchrun ------------------------------------------------------------------------------------------------------


def torchrun(*words, **more):
    variables = {**os.environ, "OMP_NUM_THREADS": "1", **more}
    words = [*TORCHRUN, *map(str, words)]
    return subprocess.run(words, capture_output=True, text=True, timeout=290, check=False, env=variables)


def arrays(folder, name):
    with np.load(folder / "points.npz") as file:
        points = {key: file[key].tolist() for key in file.files if key != "seconds"}
    with np.load(folder / f"{name}.npz") as file:
        return points | {f"record {key}": file[key].tolist() for key in file.files}


def test_a_plane_along_the_axes_of_the_hessian(digits_runs, here, alone):
    words = ["landscape", digits_runs / "plain" / "0", "--plane", "3x3", "--axes", "hessian", "--samples", "60"]
    words += ["--device", "cpu", "--name", "a"]
    alone(*words, "--results-dir", "alone")
    done = torchrun("-m", "smoothout", *words)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("written: ") == 1
    for split in ("train", "test"):
        found, expected = (arrays(here / folder / "a", f"plane-{split}") for folder in ("runs", "alone"))
        assert repr(found) == repr(expected)  # to the last bit; nan is nan
        planes = [Plane.load(here / folder / f"a/plane-{split}.npz") for folder in ("runs", "alone")]
        assert planes[0].losses == planes[1].losses


def test_a_process_that_fails_ends_those_that_are_busy(digits_runs, here):
    (here / "spy").mkdir()
    words = ["sharpness", digits_runs / "plain" / "0", *QUICK, "--measures", "noise", "--name", "a"]
    began = time.monotonic()
    done = torchrun(spied_command.__file__, *words, SPY=str(here / "spy"), SPY_WANTED="fail long")
    assert time.monotonic() - began < 280  # of the 300 s of the task of process 0; mostly imports
    assert done.returncode != 0
    assert "KeyError: 'the second task of process 1 fails'" in done.stderr
    assert "What is finished is kept; the same command goes on." in done.stdout
    finished, failed = spied_command.lines(here / "spy", "1")
    assert rows(here / "runs/a").keys() == {finished}
    assert failed != finished


# -- by hand, without torchrun, in processes that are there -----------------------------------------------------------


def run_command(group, words, port, folders, spy, wanted):
    """Status, output and errors of the command in a process with its own working folder."""
    rank = group.rank()
    where = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    os.environ.update(where, RANK=str(rank), LOCAL_RANK=str(rank), WORLD_SIZE=str(group.size()))
    before = Path.cwd()
    os.chdir(folders[rank])
    forget()
    if spy is not None:
        sharpness.measure = spied_command.spied(spy, str(rank), wanted)
    try:
        with contextlib.redirect_stdout(io.StringIO()) as out, contextlib.redirect_stderr(io.StringIO()) as err:
            try:
                status = main(words)
            except Exception:
                traceback.print_exc()
                status = 1
        return status, out.getvalue(), err.getvalue()
    finally:
        os.chdir(before)
        sharpness.measure = spied_command.real
        for name in (*where, "RANK", "LOCAL_RANK", "WORLD_SIZE"):
            del os.environ[name]


def together(processes, words, folders, spy=None, wanted=""):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    return processes(run_command, list(map(str, words)), port, folders, spy, wanted, size=len(folders))


def test_sharpness_goes_on_with_what_is_missing(processes, digits_runs, here, alone):
    checkpoints = [digits_runs / "plain" / "0", digits_runs / "noisy" / "0"]
    words = ["sharpness", *checkpoints, *QUICK, "--strengths", "0.01", "0.1", "--name", "a", "--measures"]
    alone(*words, "noise,ball,adaptive", "--results-dir", "alone")
    alone(*words, "ball")
    before = rows(here / "runs/a")
    assert len(before) == 2
    (here / "spy").mkdir()
    found = together(processes, [*words, "noise,ball,adaptive"], [here] * 3, here / "spy")
    assert [status for status, *_ in found] == [0, 0, 0]
    assert rows(here / "runs/a") == rows(here / "alone/a")  # to the last bit
    measured = [spied_command.lines(here / "spy", rank) for rank in "012"]
    assert measured[0]
    assert measured[1]
    keys = [key for some in measured for key in some]
    assert sorted(keys) == sorted(rows(here / "runs/a").keys() - before.keys())  # each once, none again
    assert "at the weights themselves" in found[0][1]
    assert found[1] == found[2] == (0, "", "")


def test_nothing_is_left_to_do(processes, digits_runs, here, alone):
    words = ["sharpness", digits_runs / "plain" / "0", *QUICK, "--measures", "ball", "--name", "a"]
    alone(*words)
    (here / "spy").mkdir()
    first, second = together(processes, words, [here] * 2, here / "spy")
    assert (first[0], second) == (0, (0, "", ""))
    assert list((here / "spy").iterdir()) == []


def test_only_the_first_process_needs_the_folder_of_results(processes, digits_runs, here, alone):
    words = ["landscape", digits_runs / "plain" / "0", "--alpha=-1:0.25:1.01", "--axes", "hessian", "--splits", "test"]
    words += ["--samples", "60", "--device", "cpu", "--name", "a"]
    alone(*words, "--results-dir", "alone")
    folders = [here / "first", here / "second"]
    for folder in folders:
        folder.mkdir()
    first, second = together(processes, words, folders)
    assert (first[0], second) == (0, (0, "", ""))
    assert list(folders[1].iterdir()) == []
    assert Line.load(folders[0] / "runs/a/line-test.npz").losses == Line.load(here / "alone/a/line-test.npz").losses


def test_a_process_that_fails_is_named_by_the_first(processes, digits_runs, here):
    (here / "spy").mkdir()
    words = ["sharpness", digits_runs / "plain" / "0", *QUICK, "--measures", "noise", "--name", "a"]
    began = time.monotonic()
    first, second = together(processes, words, [here] * 2, here / "spy", "fail")
    assert time.monotonic() - began < 100
    assert (first[0], second[0]) == (2, 1)
    assert "smoothout sharpness (process 0 of 2): process 1 stopped: Traceback" in first[2]
    assert "KeyError: 'the second task of process 1 fails'" in first[2]
    assert "KeyError: 'the second task of process 1 fails'" in second[2]
    kept = rows(here / "runs/a").keys()
    finished, failed = spied_command.lines(here / "spy", "1")
    assert finished in kept
    assert failed not in kept


def test_a_mistake_is_told_once(processes, here):
    first, second = together(processes, ["sharpness", "nowhere"], [here] * 2)
    assert first[0] == 2
    assert first[2].startswith("smoothout sharpness (process 0 of 2): ")
    assert "nowhere" in first[2]
    assert second == (0, "", "")


# -- in this process --------------------------------------------------------------------------------------------------


@pytest.fixture
def as_first_of_two(monkeypatch):
    for name, value in (("WORLD_SIZE", "2"), ("RANK", "0"), ("LOCAL_RANK", "0")):
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(spread, "meet", lambda: None)
    monkeypatch.setattr(spread, "dismiss", lambda *, wait: None)


@pytest.mark.parametrize("command", ["compare", "tune", "scan", "diagnose", "evaluate", "report"])
def test_other_commands_refuse(as_first_of_two, capsys, command):
    assert main([command, "x"]) == 2
    told = capsys.readouterr().err
    assert told.startswith(
        f"smoothout {command} (process 0 of 2): {command} is started in 2 processes (WORLD_SIZE); expected"
    )
    assert told.endswith("Start it without the launcher; compare, tune and diagnose share their work by --jobs.\n")


def test_the_original_programs_refuse(as_first_of_two, capsys):
    assert run_original(["main_normal.py"]) == 2
    assert "smoothout.original main_normal.py is started in 2 processes" in capsys.readouterr().err


@pytest.mark.parametrize("command", ["sharpness", "landscape"])
def test_jobs_are_refused(as_first_of_two, capsys, command):
    assert main([command, "x", "--jobs", "3"]) == 2
    assert "jobs is 3 in each of 2 processes (WORLD_SIZE); expected 1" in (told := capsys.readouterr().err)
    assert told.endswith("Leave --jobs out, or the launcher.\n")


@pytest.mark.parametrize(
    ("name", "local_rank", "gpus", "expected"),
    [
        ("auto", 0, 4, "cuda:0"),
        ("auto", 3, 4, "cuda:3"),
        ("cuda", 1, 2, "cuda:1"),
        ("cpu", 1, 2, "cpu"),
        ("auto", 1, 0, "auto"),
        ("cuda", 1, 0, "cuda"),  # which is refused where devices are looked up
        ("auto", 5, 1, "cuda:0"),  # the launcher shows each process its own
    ],
)
def test_each_process_takes_its_own_gpu(name, local_rank, gpus, expected):
    assert Launched(9, 16, local_rank).device(name, gpus) == expected


def test_devices_of_one_process_stay_as_they_are():
    assert [Launched().device(name, 4) for name in ("auto", "cuda", "cuda:3", "cpu")] == [
        "auto",
        "cuda",
        "cuda:3",
        "cpu",
    ]


def test_devices_that_are_refused():
    with pytest.raises(ValueError, match=r"device is 'cuda:1' in each of 2 processes .*Leave the number out"):
        Launched(0, 2, 0).device("cuda:1", 2)
    with pytest.raises(
        ValueError, match=r"LOCAL_RANK is 2 and torch finds 2 GPUs; .* Start 2 processes on this machine"
    ):
        Launched(2, 3, 2).device("auto", 2)


def test_the_environment():
    assert launched({}) == launched({"WORLD_SIZE": "1", "RANK": "0"}) == Launched()
    assert launched({"WORLD_SIZE": "4", "RANK": "2"}) == Launched(2, 4, 2)
    for wrong in ({"WORLD_SIZE": "2"}, {"WORLD_SIZE": "2", "RANK": "2"}, {"WORLD_SIZE": "x", "RANK": "0"}):
        with pytest.raises(ValueError, match="RANK from 0 to WORLD_SIZE - 1. Start the command by torchrun"):
            launched(wrong)


def test_processes_that_cannot_meet(monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("RANK", "0")
    monkeypatch.delenv("MASTER_ADDR", raising=False)
    with pytest.raises(ValueError, match=r"2 processes were started that cannot meet .*MASTER_ADDR.* by torchrun"):
        spread.meet()


def test_large_values_go_through_the_store():
    from torch.distributed import HashStore

    store = spread._Store(HashStore())
    value = os.urandom(2 * spread._CHUNK + 5)
    store.put("x", value)
    assert store.get("x") == value
    assert store.take("x") == value
    assert not store.has("x")
