"""How training in several processes scales on this machine, over gloo, and a model of it beside the measurements.

    python benchmarks/scaling.py [--rounds N | --page]

Four processes are started once, with one thread each; one, two or all of them work at a time. More processes than cores
take turns, and are marked. A round does everything once, beginning with another case each time; the slowest process
counts. Measured are all-reduces of 4 KB to 64 MB; updates as `smoothout train` makes them, of 8 ghost batches (strong
scaling) and of 2 for each process (weak scaling), with and without noise; and blocks on weights that `fully_shard` has
sharded. Writes benchmarks/results/scaling.json and tables into docs/scaling.md; with --page the tables alone.
"""

import argparse
import contextlib
import json
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any

import scaling_page
import torch
from scaling_page import RESULTS
from steps import NETWORKS, Network, Walk, environment, noisy, ratio, timed
from torch import distributed as dist
from torch import multiprocessing, nn
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.fsdp import fully_shard
from torch.nn import functional

from smoothout import AdaSmoothOut, SmoothOut, ghost_batches
from smoothout.ranks import ALONE, Ranks, ranks_of
from smoothout.running_stats import PartialRunningStats
from smoothout.train import models
from smoothout.train.passes import Learner

PROCESSES = (1, 2, 4)
BYTES = [4096 * 4**power for power in range(8)]
STRONG, WEAK = 8, 2  # ghost batches of all processes, and of each
CASES = sorted({*((STRONG, size) for size in PROCESSES), *((WEAK * size, size) for size in PROCESSES)})
RESNET8 = Network("resnet-8", lambda: models.build("resnet", (3, 32, 32), 10, 0, config={"depth": 8}), (3, 32, 32), 32, STRONG, 0)  # fmt: skip  # noqa: E501
F1 = NETWORKS["F1"]
SHARDED = (4, 1024)  # square matrices of this many rows
LIMIT = timedelta(minutes=5)

Work = Callable[[], float | None]


class Updates:
    """Updates as `smoothout train` makes them, by this process of some.

    Args:
        network: What is trained.
        ranks: The processes.
    """

    def __init__(self, network: Network, ranks: Ranks) -> None:
        torch.manual_seed(0)
        self._ghost, self._ranks = network.ghost, ranks
        self._model = network.build()
        self._learner = Learner(self._model, None, torch.device("cpu"), ranks)
        self._optimizer = torch.optim.SGD(self._model.parameters(), lr=0.01, momentum=0.9)
        self._smoother = SmoothOut(self._model, 0.02, process_group=ranks.group)
        self._inputs, self._targets = network.batch()
        self._inside = 0.0

    def make(self, ghosts: int, noise: bool) -> float:
        """Make one of so many ghost batches; returns what noise took of it."""
        self._inside = 0.0
        walk = timed(noisy(self._smoother) if noise else iter, self._took)
        with (
            PartialRunningStats(self._model, self._ranks) if self._ranks.size > 1 else contextlib.nullcontext() as stats
        ):
            self._gradient(ghosts, walk, stats)
        self._optimizer.step()
        self._optimizer.zero_grad()
        self._smoother.step()
        return self._inside

    def _gradient(self, ghosts: int, walk: Walk, stats: PartialRunningStats | None) -> None:
        samples = ghosts * self._ghost
        pieces = ghost_batches(self._inputs[:samples], self._targets[:samples], size=self._ghost)
        own = list(self._ranks.own(list(pieces)))
        skipped = self._ranks.rank
        for index, (x, y) in enumerate(walk(own)):
            if stats is not None:
                stats.skip(skipped)
            skipped = self._ranks.size - 1
            with contextlib.nullcontext() if index == len(own) - 1 else self._learner.apart():
                loss = functional.cross_entropy(self._learner(x), y) * (len(x) / samples)
                loss.backward()
        if stats is not None:
            stats.skip(ghosts - self._ranks.rank - 1 - (len(own) - 1) * self._ranks.size)

    def _took(self, seconds: float) -> None:
        self._inside += seconds


class Team:
    """The processes, as one of them sees them."""

    def __init__(self) -> None:
        groups = {size: dist.new_group(range(size), timeout=LIMIT) for size in PROCESSES}
        self.ranks = {size: ranks_of(group) for size, group in groups.items() if dist.get_rank() < size}
        #: Of this process by itself.
        self.alone = [dist.new_group([rank], timeout=LIMIT) for rank in range(dist.get_world_size())][dist.get_rank()]

    def interleaved(self, works: dict[Any, Work], rounds: int) -> dict[Any, list[tuple[float, float]]]:
        """Seconds of each work of each round, and what it returned, in the slowest process.

        The number of processes is the last part of a work's name; others wait. Two rounds before are not measured.
        """
        names = list(works)
        found: dict[Any, list[tuple[float, float]]] = {name: [(0.0, 0.0)] * rounds for name in names}
        for index in range(-2, rounds):
            for place in range(len(names)):
                name = names[(place + index) % len(names)]
                dist.barrier()
                if name[-1] in self.ranks:
                    began = time.perf_counter()
                    inside = works[name]()
                    took = time.perf_counter() - began
                    if index >= 0:
                        found[name][index] = (took, inside or 0.0)
        everyone: list[Any] = [None] * dist.get_world_size()
        dist.all_gather_object(everyone, found)
        return {
            name: [
                tuple(map(max, zip(*each, strict=True))) for each in zip(*(one[name] for one in everyone), strict=True)
            ]
            for name in names
        }


def all_reduces(team: Team, rounds: int) -> list[dict[str, Any]]:
    """Seconds of an all-reduce against bytes, for two processes and four."""

    def repeats(size: int) -> int:
        return max(1, min(50, 2**22 // size))

    def work(values: torch.Tensor, processes: int) -> None:
        for _ in range(repeats(values.nbytes)):
            team.ranks[processes].sum(values)

    works = {(size, p): partial(work, torch.zeros(size // 4), p) for p in PROCESSES[1:] for size in BYTES}
    return [
        {"processes": p, "bytes": size, "seconds": statistics.median(_took(times)) / repeats(size)}
        for (size, p), times in team.interleaved(works, rounds).items()
    ]


def updates(team: Team, network: Network, rounds: int) -> dict[str, Any]:
    """Seconds an update, of each case, with and without noise."""
    made = {size: Updates(network, ranks) for size, ranks in team.ranks.items()}

    def work(ghosts: int, noise: bool, size: int) -> float:
        return made[size].make(ghosts, noise)

    works: dict[Any, Work] = {
        (ghosts, noise, size): partial(work, ghosts, noise, size) for ghosts, size in CASES for noise in (0, 1)
    }
    alone = Updates(network, ALONE)  # whatever the others do
    works |= {("side by side", size): partial(alone.make, WEAK, False) for size in PROCESSES}
    times = team.interleaved(works, rounds)
    rows = []
    for ghosts, size in CASES:
        plain, noise = (_took(times[ghosts, noise, size]) for noise in (0, 1))
        row = {
            "ghosts": ghosts,
            "processes": size,
            "plain": statistics.median(plain),
            "noisy": statistics.median(noise),
        }
        row["noise"] = statistics.median(inside for _, inside in times[ghosts, 1, size])
        row["noisy / plain"] = ratio(noise, plain).record()
        for kind, base in (("strong", STRONG), ("weak", WEAK)):
            if ghosts == base * (size if kind == "weak" else 1):
                row[kind] = {
                    "plain": ratio(plain, _took(times[base, 0, 1])).record(),
                    "noisy": ratio(noise, _took(times[base, 1, 1])).record(),
                }
        rows.append(row)
    beside = {str(p): ratio(*(_took(times["side by side", each]) for each in (p, 1))).median for p in PROCESSES[1:]}
    model = network.build()
    norms = [module.num_features for module in model.modules() if isinstance(module, nn.modules.batchnorm._BatchNorm)]
    weights = sum(parameter.numel() for parameter in model.parameters())
    return {
        "weights": weights,
        "channels": sum(norms),
        "side by side": beside,
        "ghost batch": network.ghost,
        "updates": rows,
    }


def sharded_blocks(team: Team, rounds: int) -> dict[str, Any]:
    """Seconds to enter and leave a block on sharded weights; where SmoothOut refuses them, what it says."""
    smoothers = {
        size: {kind: _smoother(kind, ranks, team.alone) for kind in _KINDS} for size, ranks in team.ranks.items()
    }
    works: dict[Any, Work] = {
        (kind, size): partial(lambda kind, size: _block(smoothers[size][kind]), kind, size)
        for kind in _KINDS
        for size in PROCESSES
    }
    times = team.interleaved(works, rounds)
    rows = [
        {
            "kind": kind,
            "processes": size,
            "seconds": statistics.median(_took(times[kind, size])),
            "times one process": ratio(*(_took(times[kind, p]) for p in (size, 1))).record(),
        }
        for kind, size in works
    ]
    return {"weights": SHARDED[0] * SHARDED[1] ** 2, "tensors": SHARDED[0], "blocks": rows}


_KINDS: dict[str, Callable[..., SmoothOut]] = {
    "SmoothOut": lambda model, **group: SmoothOut(model, 0.02, **group),
    "AdaSmoothOut": lambda model, **group: AdaSmoothOut(model, 0.3, **group),
}


def _smoother(kind: str, ranks: Ranks, alone: Any) -> SmoothOut:
    """Of sharded weights, of which no process outside of their mesh has a copy."""
    return _KINDS[kind](_sharded(ranks), process_group=alone)


def _sharded(ranks: Ranks) -> nn.Module:
    """Square matrices, along dimension 0."""
    layers, width = SHARDED
    model = nn.Sequential(*(nn.Linear(width, width, bias=False) for _ in range(layers)))
    mesh = DeviceMesh.from_group(ranks.group, "cpu")
    for layer in model:
        fully_shard(layer, mesh=mesh)
    return fully_shard(model, mesh=mesh)


def _block(smoother: SmoothOut) -> None:
    with smoother.perturbed(stream=0):
        pass


def _took(times: Iterable[tuple[float, float]]) -> list[float]:
    return [took for took, _ in times]


@contextlib.contextmanager
def _joined(rank: int, meeting: str) -> Iterator[Team]:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{meeting}", rank=rank, world_size=PROCESSES[-1], timeout=LIMIT)
    yield Team()
    dist.barrier()
    dist.destroy_process_group()


def _measure(rank: int, meeting: str, rounds: int) -> None:
    """What each process does; the first one writes, after each part."""
    found: dict[str, Any] = {"environment": environment(), "load before": os.getloadavg()[0], "rounds": rounds}

    def keep(**parts: Any) -> None:
        found.update(parts)
        if rank == 0:
            RESULTS.write_text(json.dumps(found, indent=1) + "\n")

    with _joined(rank, meeting) as team:
        keep(all_reduce=all_reduces(team, rounds), networks={}, sharded={"not measured": "cut off"})
        for network in (F1, RESNET8):
            keep(networks=found["networks"] | {network.name: updates(team, network, rounds)})
        keep(sharded=sharded_blocks(team, rounds))


def main() -> None:
    """Measure, and write what came of it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--page", action="store_true")
    chosen = parser.parse_args()
    if not chosen.page:
        os.environ["OMP_NUM_THREADS"] = "1"
        with tempfile.TemporaryDirectory() as folder:
            multiprocessing.spawn(_measure, (str(Path(folder) / "meeting"), chosen.rounds), PROCESSES[-1])
    scaling_page.write()
    print("\n".join(scaling_page.lines()))


if __name__ == "__main__":
    main()
