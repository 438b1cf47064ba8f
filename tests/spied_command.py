"""A command whose measures leave a line each in FOLDER/RANK, and fail or wait where a test says so."""

import functools
import os
import sys
import time
from pathlib import Path

from smoothout.cli.main import main
from smoothout.measuring import sharpness as measuring

real = measuring.measure


def lines(folder, rank):
    path = folder / rank
    return path.read_text().split() if path.exists() else []


def wait_for_the_other(folder, count):
    """So that it has tasks, however fast the first process is."""
    end = time.monotonic() + 100
    while len(lines(folder, "1")) < count and time.monotonic() < end:
        time.sleep(0.02)


def spied(folder, rank, wanted):
    """A measure that takes notes; the second one of process 1 may fail, those of process 0 may take for ever."""

    @functools.wraps(real)  # pickle finds it by its name
    def measure(task):
        with (folder / rank).open("a") as file:
            print(task.key, file=file)
        if rank == "0":
            wait_for_the_other(folder, 2 if "fail" in wanted else 1)
        if "fail" in wanted and rank == "1" and len(lines(folder, "1")) == 2:
            raise KeyError("the second task of process 1 fails")
        if "long" in wanted and rank == "0":
            time.sleep(300)
        return real(task)

    return measure


if __name__ == "__main__":
    measuring.measure = spied(Path(os.environ["SPY"]), os.environ["RANK"], os.environ["SPY_WANTED"])
    sys.exit(main())
