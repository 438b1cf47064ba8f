"""Examples, as torchrun starts them, and what the benchmark of scaling times."""

import copy
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from launched import BIN, SECONDS

ROOT = Path(__file__).parents[2]
EXAMPLES, BENCHMARKS = ROOT / "examples", ROOT / "benchmarks"


def started(example, size):
    return subprocess.Popen(
        [BIN / "torchrun", "--standalone", "--nproc-per-node", str(size), EXAMPLES / example],
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
    alone, both = (final_loss(process) for process in [started("ddp.py", 1), started("ddp.py", 2)])
    assert 0.1 < alone < 1
    assert both == pytest.approx(alone, rel=1e-5)  # with other noise in one process it differs by 4e-3


def test_fully_shard():
    run = started("fsdp.py", 2)
    text = run.communicate(timeout=SECONDS)[0]
    assert run.returncode == 0, text
    losses = [float(number) for number in re.findall(r"loss (\d\.\d{4})$", text, re.MULTILINE)]
    assert len(losses) == 20
    assert losses[-1] < 0.7 * losses[0]


def trained(group):
    import torch

    from smoothout.ranks import ranks_of

    sys.path.insert(0, str(BENCHMARKS))
    import scaling
    from steps import Network

    net = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.BatchNorm1d(8), torch.nn.Linear(8, 10))
    made = scaling.Updates(Network("small", lambda: copy.deepcopy(net), (4,), 5, scaling.STRONG, 0), ranks_of(group))
    inside = [made.make(ghosts, noise) for ghosts in (scaling.STRONG, 6) for noise in (False, True)]
    return made._model.state_dict(), inside


@pytest.mark.parametrize("size", [2, 4])
def test_the_benchmark_of_scaling_times_updates_that_do_not_depend_on_the_number_of_processes(processes, size):
    [(expected, _)] = processes(trained, size=1)
    for found, inside in processes(trained, size=size):
        for name, value in expected.items():
            assert found[name].double().numpy() == pytest.approx(value.double().numpy(), rel=1e-4, abs=1e-6), name
        assert inside[1] > inside[0] >= 0
