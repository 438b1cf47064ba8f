"""Examples, as torchrun starts them."""

import os
import re
import subprocess
from pathlib import Path

import pytest
from launched import BIN, SECONDS

EXAMPLES = Path(__file__).parents[2] / "examples"


def started(size):
    return subprocess.Popen(
        [BIN / "torchrun", "--standalone", "--nproc-per-node", str(size), EXAMPLES / "ddp.py"],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )


def final_loss(process):
    text = process.communicate(timeout=SECONDS)[0]
    assert process.returncode == 0, text
    [found] = re.findall(r"^final loss: (\d\.\d+)$", text, re.MULTILINE)  # said once
    return float(found)


def test_ones_own_loop_does_not_depend_on_the_number_of_processes():
    alone, both = (final_loss(process) for process in [started(1), started(2)])
    assert 0.1 < alone < 1
    assert both == pytest.approx(alone, rel=1e-5)  # with another noise it differs by some 1e-4
