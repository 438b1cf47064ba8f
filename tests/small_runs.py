"""Runs of a small network on small data, watched."""

from pathlib import Path

import torch
from safetensors.torch import load_file

from smoothout.cli.main import main
from smoothout.train.config import Settings
from smoothout.train.loop import train
from smoothout.train.run import prepare
from smoothout.train.run_folder import RunFolder

USER = Path(__file__).parent / "train" / "user_code.py"


class Watcher:
    def __init__(self, stop_after=None):
        self.rows, self.updates, self._stop_after = [], 0, stop_after

    def started(self, lines, updates):
        self.lines, self.expected = lines, updates

    def updated(self, seen):
        assert seen().samples > 0
        self.updates += 1
        if self.updates == self._stop_after:
            raise KeyboardInterrupt

    def finished_epoch(self, row, best):
        self.rows.append((row, best))


def settings(**changes):
    defaults = {
        "dataset": f"{USER}:blobs",
        "model": f"{USER}:net",
        "batch_size": 64,
        "ghost_batch_size": 24,
        "epochs": 4,
        "strength": 0.05,
        "seed": 3,
    }
    return Settings().replace(**(defaults | changes))


def run(path, chosen, watcher=None, resume=False):
    prepared = prepare(chosen, resume=resume)
    folder = RunFolder.open(path) if resume else RunFolder.create(path, chosen)
    result = train(prepared, folder, watcher or Watcher(), resume=resume)
    return folder, result


def weights(folder, name="last"):
    return load_file(folder.checkpoint(name) / "model.safetensors")


def command(words):
    """A command in a process of its own, on one thread as the tests are."""
    torch.set_num_threads(1)
    main(words)


def equal(one, other):
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)
