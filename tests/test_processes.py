"""What a folder says of the process that fills it, and whether that is true."""

import json
import os
import shlex
import signal
import subprocess
import sys
import time
from contextlib import contextmanager
from dataclasses import replace

import psutil
import pytest
from small_runs import USER, settings

from smoothout.cli.arguments import parse
from smoothout.cli.main import main
from smoothout.cli.train import Arguments
from smoothout.results.files import write_json
from smoothout.results.processes import commit_of, first_command, interrupted, read_process, recorded, state_of
from smoothout.results.runs import EpochMetrics, write_metrics
from smoothout.train import comparison
from smoothout.train.provenance import command_of, machine, versions

CODE = ["--dataset", f"{USER}:blobs", "--model", f"{USER}:net", "--device", "cpu"]


def record(folder, error=None, **options):
    with recorded(folder, "smoothout train", {"torch": "2"}, {"cores": "2"}, **options):
        if error is not None:
            raise error


def running(folder, **changes):
    """A process.json as this very process leaves it while it runs, with some of it changed."""
    record(folder)
    found = replace(read_process(folder), outcome="running", ended=None, **changes)
    write_json(folder / "process.json", found)
    return found


def test_a_folder_says_who_fills_it_and_how_that_ended(tmp_path):
    assert (state_of(tmp_path), read_process(tmp_path)) == ("unknown", None)
    with recorded(tmp_path, "smoothout train --lr 1", {"torch": "2"}, {"cores": "2"}):
        assert state_of(tmp_path) == "running"
        now = read_process(tmp_path)
        assert (now.command, now.machine, now.pid, now.ended) == (
            first_command(tmp_path),
            {"cores": "2"},
            os.getpid(),
            None,
        )
    assert state_of(tmp_path) == "finished"
    assert read_process(tmp_path) == replace(now, outcome="finished", ended=read_process(tmp_path).ended)
    assert now.started.endswith("+00:00")
    assert os.uname().nodename not in (tmp_path / "process.json").read_text()


@pytest.mark.parametrize(
    "error, state, told",
    [
        (FloatingPointError("the loss\n  is nan"), "failed", "FloatingPointError: the loss is nan"),
        (KeyboardInterrupt(), "interrupted", None),
        (SystemExit(1), "interrupted", None),
        (LookupError("enough"), "interrupted", None),
    ],
    ids=repr,
)
def test_the_way_out_is_recorded_and_the_error_goes_on(tmp_path, error, state, told):
    with pytest.raises(type(error)):
        record(tmp_path, error, stops=(LookupError,))
    assert (state_of(tmp_path), read_process(tmp_path).error) == (state, told)


def test_a_folder_that_has_gone_hides_no_error(tmp_path):
    (tmp_path / "run").mkdir()

    def go():
        with recorded(tmp_path / "run", "", {}, {}):
            (tmp_path / "run" / "process.json").unlink()
            (tmp_path / "run").rmdir()
            raise ValueError("the first")

    with pytest.raises(ValueError, match="the first"):
        go()


def test_a_process_id_that_is_used_again_is_not_the_process(tmp_path):
    found = running(tmp_path)
    assert state_of(tmp_path) == "running"
    running(tmp_path, pid_started=found.pid_started - 60)
    assert state_of(tmp_path) == "vanished"
    interrupted(tmp_path)
    assert state_of(tmp_path) == "interrupted"


def test_a_process_that_nobody_has_waited_for_does_not_run(tmp_path):
    with subprocess.Popen([sys.executable, "-c", ""]) as child:
        running(tmp_path, pid=child.pid, pid_started=psutil.Process(child.pid).create_time())
        while psutil.Process(child.pid).status() != psutil.STATUS_ZOMBIE:
            time.sleep(0.01)
        assert state_of(tmp_path) == "vanished"


def test_a_process_of_another_machine_runs_as_long_as_it_writes(tmp_path):
    running(tmp_path, host="another", pid=1)
    assert state_of(tmp_path) == "running"
    long_ago = time.time() - 2 * 3600
    os.utime(tmp_path / "process.json", (long_ago, long_ago))
    assert state_of(tmp_path) == "vanished"
    write_metrics(tmp_path / "metrics.csv", [EpochMetrics(1, *([0.0] * 12), 4, 1.0, 3000.0, 1.0)])
    assert state_of(tmp_path) == "running"
    os.utime(tmp_path / "metrics.csv", (long_ago, long_ago))
    assert state_of(tmp_path) == "running"  # of epochs that take 50 minutes
    os.utime(tmp_path / "metrics.csv", (long_ago - 3600, long_ago - 3600))
    os.utime(tmp_path / "process.json", (long_ago - 3600, long_ago - 3600))
    assert state_of(tmp_path) == "vanished"


def test_a_result_counts_more_than_the_process(tmp_path):
    running(tmp_path, pid_started=0.0)
    (tmp_path / "result.json").write_text("{}")
    assert state_of(tmp_path) == "finished"


@pytest.mark.parametrize("text", ["", "[]", '{"pid": 3}', None, "{"])
def test_another_programs_file_is_refused(tmp_path, text):
    running(tmp_path)
    known = json.loads((tmp_path / "process.json").read_text())
    (tmp_path / "process.json").write_text(json.dumps(known | {"outcome": "odd"}) if text is None else text)
    with pytest.raises(ValueError, match=r"process.json cannot be read .* Delete it: nothing else needs it"):
        state_of(tmp_path)
    assert first_command(tmp_path) is None
    interrupted(tmp_path)


def test_the_commit_is_that_of_the_working_directory(tmp_path, monkeypatch):
    def git(*words):
        subprocess.run(["git", "-c", "user.name=a", "-c", "user.email=a@b", *words], cwd=tmp_path, check=True)

    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    assert commit_of(tmp_path) is None
    git("init", "-q")
    assert commit_of(tmp_path) is None
    (tmp_path / "a").write_text("a")
    git("add", "a")
    git("commit", "-qm", "a")
    commit = commit_of(tmp_path)
    assert len(commit) == 40
    (tmp_path / "b").write_text("b")
    assert commit_of(tmp_path, "-uno") == commit
    assert commit_of(tmp_path) == f"{commit} and changes"
    (tmp_path / "a").write_text("b")
    assert commit_of(tmp_path, "-uno") == f"{commit} and changes"
    monkeypatch.setenv("PATH", "")
    assert commit_of(tmp_path) is None


def test_recording_takes_milliseconds(tmp_path):
    began = time.process_time()
    record(tmp_path)
    assert time.process_time() - began < 0.2


def test_the_machine_and_the_command_are_told(tmp_path):
    assert {"processor", "instructions", "cores", "threads"} == machine().keys()
    assert versions().keys() == {"smoothout", "python", "torch"}
    words = shlex.split(command_of(settings(augment=False, milestones=(2, 3))))
    assert words[:2] == ["smoothout", "train"]
    back = parse(Arguments, words[2:], "train", "").settings
    assert back == settings(augment=False, milestones=(2, 3))


@contextmanager
def training(folder, name):
    """A real run that would take very long, once it has finished an epoch."""
    script = "import sys, smoothout.cli.main as m; sys.exit(m.main(sys.argv[1:]))"
    words = ["train", *CODE, "--epochs", "2000", "--name", name, "--results-dir", str(folder)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-c", script, *words]
    with subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE) as process:
        try:
            yield process
        finally:
            process.kill()


def wait_for(path, process):
    while not path.is_file():
        assert process.poll() is None
        time.sleep(0.02)


def test_runs_that_are_killed_or_interrupted(tmp_path):
    with training(tmp_path, "killed") as killed, training(tmp_path, "stopped") as stopped:
        for name, process in (("killed", killed), ("stopped", stopped)):
            wait_for(tmp_path / name / "metrics.csv", process)
            assert state_of(tmp_path / name) == "running"
        killed.kill()
        stopped.send_signal(signal.SIGINT)
        assert b"Go on with" in stopped.communicate()[1]
        killed.communicate()
    assert state_of(tmp_path / "killed") == "vanished"
    assert state_of(tmp_path / "stopped") == "interrupted"
    assert read_process(tmp_path / "stopped").command.startswith(f"smoothout train --dataset {USER}:blobs")


def test_a_run_that_fails_and_one_that_goes_on(tmp_path, capsys, monkeypatch):
    words = ["train", *CODE, "--epochs", "2", "--name", "a", "--results-dir", str(tmp_path)]
    assert main([*words, "--lr", "1e30", "--lr-rule", "none"]) == 2
    process = read_process(tmp_path / "a")
    assert state_of(tmp_path / "a") == "failed"
    assert process.error.startswith("FloatingPointError: the training loss is")
    assert process.machine["device"] == "cpu"

    again = [*words, "--overwrite"]
    with monkeypatch.context() as patched:
        patched.setattr("smoothout.cli.train.Show.finished_epoch", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        assert main(again) == 130
    assert (state_of(tmp_path / "a"), read_process(tmp_path / "a").error) == ("interrupted", None)
    first = read_process(tmp_path / "a")
    assert main(["train", *CODE[:4], "--name", "a", "--results-dir", str(tmp_path), "--resume"]) == 0
    resumed = read_process(tmp_path / "a")
    assert (resumed.outcome, resumed.command) == ("finished", first.command)
    assert resumed.ended is not None


ARMS = f"""
seeds = [0]
[common]
dataset = "{USER}:blobs"
model = "{USER}:net"
epochs = 2
device = "cpu"
[arms.a]
[arms.b]
lr = 1e30
lr_rule = "none"
[arms.c]
model_config = "{{'x': 1}}"
"""


def test_a_comparison_and_its_runs(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "arms.toml").write_text(ARMS)
    assert main(["compare", "arms.toml", "--name", "c"]) == 1
    folder = tmp_path / "runs" / "c"
    assert state_of(folder) == "finished"
    assert read_process(folder).command == "smoothout compare arms.toml --name c"
    assert [state_of(folder / arm / "0") for arm in "abc"] == ["finished", "failed", "failed"]
    assert read_process(folder / "a" / "0").command == (
        f"smoothout train --dataset {USER}:blobs --model {USER}:net --epochs 2 --device cpu"
    )
    assert read_process(folder / "b" / "0").error.startswith("FloatingPointError: the training loss is")
    assert "the model config gives 'x'" in read_process(folder / "c" / "0").error


def test_an_interrupted_comparison_says_so_of_its_runs(tmp_path):
    arms = [comparison.Arm("short", settings(epochs=1), None), comparison.Arm("long", settings(epochs=2000), None)]
    comparison.start(tmp_path / "c", arms, (0,), overwrite=False, resume=False)
    long = tmp_path / "c" / "long" / "0"

    def told(_):
        while not (long / "metrics.csv").is_file():
            time.sleep(0.02)
        assert state_of(long) == "running"
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        comparison.run_all(tmp_path / "c", arms, (0,), 2, told)
    assert state_of(tmp_path / "c" / "short" / "0") == "finished"
    assert state_of(long) == "interrupted"
