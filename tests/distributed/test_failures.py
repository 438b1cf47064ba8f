"""What happens to the other processes when one is killed or raises."""

import os
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import torch
from launched import SECONDS, SMALL, command, torchrun
from safetensors.torch import load_file

from smoothout import launch
from smoothout.cli.main import main
from smoothout.results.processes import state_of
from smoothout.train.config import Settings


def weights(folder):
    return load_file(folder / "checkpoints" / "last" / "model.safetensors")


def whole(group, folder, words):
    """The run that nothing happens to."""
    from smoothout.cli.arguments import parse
    from smoothout.cli.train import Arguments
    from smoothout.train.loop import Unwatched, train
    from smoothout.train.run import prepare
    from smoothout.train.run_folder import RunFolder

    os.environ |= {"TROUBLE": "", "TROUBLE_AT": "-1"}
    settings = parse(Arguments, words, "train", "").settings
    prepared = prepare(settings, process_group=group)
    train(prepared, RunFolder.create(folder, settings) if prepared.ranks.first else None, Unwatched())


def test_a_killed_process_is_started_again_and_ends_with_the_same_weights(processes, tmp_path):
    words = command(SMALL, tmp_path, "killed", "killed")
    options = "--standalone --nproc-per-node 3 --max-restarts 1"  # of two processes, sums have one order
    # The twelfth pass of process 1 is in the second epoch.
    run = torchrun(options, ["train", *words], TROUBLE=str(tmp_path / "once"), TROUBLE_AT="12")
    processes(whole, tmp_path / "whole", words, size=3)
    text = run.communicate(timeout=SECONDS)[0]
    assert run.returncode == 0, text
    assert (tmp_path / "once").exists()
    assert text.count("run: ") == 2
    assert text.count("epoch 1/3") == 1  # kept
    assert text.count("epoch 2/3") == 1
    expected, found = weights(tmp_path / "whole"), weights(tmp_path / "killed")
    assert all(torch.equal(found[name], value) for name, value in expected.items())
    assert state_of(tmp_path / "killed") == "finished"


def test_a_process_that_raises_ends_all_with_its_words(tmp_path):
    words = ["train", *command(SMALL, tmp_path, "run", "raising")]
    run = torchrun("--standalone --nproc-per-node 2", words, TROUBLE=str(tmp_path / "when"), TROUBLE_AT="6")
    text = run.communicate(timeout=SECONDS)[0]
    assert time.time() - float((tmp_path / "when").read_text()) < 20  # torch's own limit is half an hour
    assert run.returncode != 0
    assert "ValueError: a mistake in the network" in text
    assert state_of(tmp_path / "run") in ("vanished", "failed")


def test_a_mistake_in_an_option_is_said_by_each(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("RANK", "1")
    assert main(["train", "--resume"]) == 2
    assert capsys.readouterr().err.startswith("smoothout train (process 1 of 2): --resume needs --name")


def test_restarts_need_a_name(monkeypatch, capsys):
    monkeypatch.setenv("TORCHELASTIC_MAX_RESTARTS", "1")
    assert main(["train"]) == 2
    assert "torchrun may start the run again and there is no --name" in capsys.readouterr().err


def test_a_restart_does_not_take_a_run_that_was_there_before(tmp_path, monkeypatch, capsys):
    (tmp_path / "old").mkdir()
    (tmp_path / "old" / "config.json").write_text(Settings().to_json())
    for name, value in (("RUN_ID", "some"), ("MAX_RESTARTS", "1"), ("RESTART_COUNT", "1")):
        monkeypatch.setenv(f"TORCHELASTIC_{name}", value)
    store = Store()
    monkeypatch.setattr(launch, "_store", lambda: (store, 0, 1))
    words = ["train", *command(SMALL, tmp_path, "old")]
    assert main(words) == 2
    assert "old exists. Use --resume, --overwrite" in capsys.readouterr().err
    launch.note(f"made {tmp_path / 'old'}")
    assert main(words) == 2  # it was begun with other settings
    assert "the run was started with" in capsys.readouterr().err


class Store:
    """Of torch, as far as it is used."""

    def __init__(self):
        self.values, self.changed = {}, threading.Condition()

    def set(self, key, value):
        with self.changed:
            self.values[key] = value.encode()
            self.changed.notify_all()

    def get(self, key):
        with self.changed:
            assert self.changed.wait_for(lambda: key in self.values, 30)
            return self.values[key]

    def add(self, key, amount):
        with self.changed:
            self.values[key] = str(int(self.values.get(key, 0)) + amount).encode()
            return int(self.values[key])

    def check(self, keys):
        return all(key in self.values for key in keys)


def test_attempts_are_told_apart_whatever_earlier_ones_left():
    store, size = Store(), 4
    for attempt in range(1, 4):
        with ThreadPoolExecutor(size) as pool:
            found = list(pool.map(lambda rank: launch._attempt(store, rank, size), range(size)))
        assert found == [attempt] * size
        if attempt == 2:  # an attempt in which only some processes came so far
            store.set("hello/1", "one that is gone")
