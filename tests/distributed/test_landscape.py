"""Lines and planes whose passes over the data several processes share, against one process alone."""

import importlib.util
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from smoothout import landscape
from smoothout.ranks import ranks_of
from smoothout.samples import Samples

_file = Path(__file__).parents[1] / "landscape" / "networks.py"
_spec = importlib.util.spec_from_file_location("small_networks", _file)
networks = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(networks)

SIZES = (20, 13, 7, 5, 11)
ROOM = 20 * (5 * 4 + 8)  # bytes of the largest batch


def told_times(group, kind, bn, room=None):
    """The record, how often progress was told, and batches that went through this process's network."""
    a, b, c = (networks.network(seed) for seed in (1, 2, 3))
    data = networks.batches(SIZES)
    if kind == "line":
        function, grid = landscape.line, {"axes": landscape.between(a, b), "alphas": (-0.5, 0, 0.25, 0.5, 1)}
    elif kind == "direction":
        function, grid = landscape.line, {"axes": landscape.direction(a), "alphas": (-1, 0, 1)}
    else:
        function, grid = landscape.plane, {"axes": landscape.through(a, b, c), "xs": (0, 0.5), "ys": (-0.5, 0, 0.5)}
    given = Samples(data, torch.device("cpu"), room=room) if room else data
    told, passes = [], []
    before = networks.state_of(a)
    a.register_forward_hook(lambda *_: passes.append(1))
    grid["told"] = lambda done, total: told.append((done, total))
    found = function(a, given, bn=bn, process_group=group, **grid)
    assert networks.same_state(a, before)
    return replace(found, seconds=0.0), told, len(passes)


KINDS = [("line", "interpolate"), ("line", "recompute"), ("direction", "keep"), ("plane", "keep")]


@pytest.mark.parametrize(("kind", "bn"), KINDS)
@pytest.mark.parametrize("size", [2, 3, 4])
def test_all_numbers_are_those_of_one_alone(processes, size, kind, bn):
    expected, told, passes = told_times(None, kind, bn)
    everyone = processes(told_times, kind, bn, size=size)
    for found, progress, _ in everyone:
        assert repr(found) == repr(expected)  # nan is nan
        assert progress == told
    if bn != "recompute":
        assert sum(own for *_, own in everyone) == passes


def unequal_memory(group):
    """The first process keeps the data, the others read them again."""
    room = None if ranks_of(group).first else ROOM
    return [told_times(group, "line", bn, room)[0] for bn in ("interpolate", "recompute")]


def test_processes_with_more_and_less_memory(processes):
    expected = [told_times(None, "line", bn)[0] for bn in ("interpolate", "recompute")]
    assert processes(unequal_memory, size=3) == [expected] * 3


def axes(group):
    model = networks.network(1).double()
    data = [(inputs.double(), targets) for inputs, targets in networks.batches(SIZES)]
    found = landscape.hessian_axes(model, data, process_group=group, tolerance=1e-8)
    return torch.cat([part.flatten() for vector in found.vectors for part in vector])


def test_the_axes_of_the_hessian(processes):
    expected = axes(None)
    everyone = processes(axes, size=3)
    for found in everyone:
        assert torch.equal(found, everyone[0])
        assert torch.allclose(found, expected, rtol=1e-5, atol=1e-7)


def points_of_others(group):
    model = networks.network(1)
    axes = landscape.direction(model, seed=ranks_of(group).rank)
    point = landscape.Point((0.5,) * (1 + (ranks_of(group).rank == 1)), "keep")
    with pytest.raises(ValueError, match="expected 1 finite") as error:
        landscape.measure_points(model, networks.batches(), axes=axes, points=[point], process_group=group)
    return str(error.value)


def test_what_one_refuses_all_refuse(processes):
    first, second, third = processes(points_of_others, size=3)
    assert second.startswith("a point is (0.5, 0.5)")
    assert first == third == f"process 1 stopped: ValueError: {second}"
