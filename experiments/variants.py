"""Training runs whose noise is changed in a way that no option offers: how ideas are tried before they are built."""

import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import nullcontext
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from smoothout import SmoothOut
from smoothout.results.comparisons import slug
from smoothout.risk import risk
from smoothout.running_stats import frozen_running_stats, recompute_running_stats
from smoothout.scope import Block, Item
from smoothout.train.comparison import Silent
from smoothout.train.config import Settings
from smoothout.train.data.splits import in_order
from smoothout.train.loop import train
from smoothout.train.run import Run, prepare
from smoothout.train.run_folder import RunFolder
from smoothout.train.workers import each


@dataclass(frozen=True)
class Variant:
    """Options, and what is changed after a run has been prepared: a function of this file, or of another module."""

    name: str
    options: dict[str, Any]
    change: Callable[[Run], None] | None = None


@dataclass(frozen=True)
class _Task:
    folder: Path
    variant: Variant
    common: dict[str, Any]
    seed: int


def run_variants(
    folder: Path, variants: Sequence[Variant], common: dict[str, Any], seeds: Sequence[int], jobs: int
) -> dict[str, list[dict[str, Any]]]:
    """Results by variant and seed; finished runs are read from the folder."""
    tasks = [_Task(folder, variant, common, seed) for seed in seeds for variant in variants]
    missing = [task for task in tasks if not _result(task).is_file()]
    for count, (task, _) in enumerate(each(_train, missing, jobs), 1):
        print(f"{count} of {len(missing)}: {task.variant.name}, seed {task.seed}", flush=True)
    found: dict[str, list[dict[str, Any]]] = {variant.name: [] for variant in variants}
    for task in tasks:
        found[task.variant.name].append(json.loads(_result(task).read_text()))
    return found


def _result(task: _Task) -> Path:
    return task.folder / slug(task.variant.name) / f"{task.seed}.json"


def _train(task: _Task) -> None:
    """One run; beside its own result the accuracies with BatchNorm statistics taken anew at the clean weights."""
    settings = Settings().replace(**(task.common | task.variant.options | {"seed": task.seed}))
    run = prepare(settings)
    if task.variant.change is not None:
        task.variant.change(run)
    path = _result(task)
    folder = RunFolder.create(path.with_suffix(""), run.settings, overwrite=True)
    result = asdict(train(run, folder, Silent(folder)))
    inputs = (run.dataset.normalise(batch) for batch, _ in in_order(run.dataset.train))
    recompute_running_stats(run.network, inputs)
    for split in ("holdout", "test"):
        seen = risk(run.network, in_order(run.dataset.split(split)), loss=run.loss, prepare=run.dataset.normalise)
        result[f"{split}_accuracy_recomputed"] = 100 - seen.error1
    path.write_text(json.dumps(result))


def antithetic(run: Run) -> None:
    """Every second copy of a ghost batch gets the noise of the copy before it with the other sign."""
    run.smoother.__class__ = _Antithetic


class _Antithetic(SmoothOut):
    def _displace(self, stream: int, draw: int, sign: int) -> None:
        """As SmoothOut's, for draw 2k and 2k + 1 as a pair."""
        super()._displace(stream, draw // 2, -sign if draw % 2 else sign)


def statistics_of_the_first(run: Run) -> None:
    """Running statistics of BatchNorm come from the first ghost batch of each update alone."""
    run.smoother.__class__ = _StatisticsOfTheFirst
    run.smoother.model = run.network  # type: ignore[attr-defined]


class _StatisticsOfTheFirst(SmoothOut):
    model: nn.Module

    def perturbed(self, stream: int | None = None, draw: int = 0, *, antithetic: bool = False) -> Block:
        """As SmoothOut's."""
        block = super().perturbed(stream, draw, antithetic=antithetic)
        block.__class__ = _CountsTheFirst
        return block


class _CountsTheFirst(Block):
    def each(self, items: Iterable[Item], *, copies: int = 1) -> Iterator[Item]:
        """As of any block."""
        smoother: Any = self._smoother
        for item in super().each(items, copies=copies):
            with nullcontext() if smoother._last_stream == 0 else frozen_running_stats(smoother.model):
                yield item


def distance_controller(target: float) -> Callable[[Run], None]:
    """A strength that rises by 1 % an update while noise moves the outputs less than ``target``, else falls.

    Measured after each update on one ghost batch: total variation between the class probabilities with and without
    noise, averaged over samples. Two forward passes of one ghost batch an update.
    """
    return _SetTarget(target)


@dataclass(frozen=True)
class _SetTarget:
    target: float

    def __call__(self, run: Run) -> None:
        run.smoother.__class__ = _ByDistance
        run.smoother.target, run.smoother.run, run.smoother.fast = self.target, run, 10.0  # type: ignore[attr-defined]
        run.smoother.rose = None  # type: ignore[attr-defined]
        # As AutoStrength starts: relative noise .02.
        summary = run.smoother.summary()
        run.smoother.strength *= 0.02 / summary.relative_noise


class _ByDistance(SmoothOut):
    target: float
    run: Run
    fast: float
    rose: bool | None

    def step(self) -> None:
        """As SmoothOut's, and a change of the strength in the way that AutoStrength's is changed."""
        super().step()
        size = self.run.settings.batches.ghost_batch_size
        chosen = torch.randperm(len(self.run.dataset.train), generator=torch.Generator().manual_seed(self._updates))
        inputs, _ = next(self.run.dataset.train.batches([size], chosen[:size]))
        inputs = self.run.dataset.normalise(inputs)
        with torch.no_grad(), frozen_running_stats(self.run.network):
            clean = self.run.network(inputs).softmax(1)
            with self.perturbed(stream=10_000):
                noisy = self.run.network(inputs).softmax(1)
        below = float((clean - noisy).abs().sum(1).mean() / 2) < self.target
        if self.rose not in (None, below):
            self.fast = max(1.0, self.fast / 2)
        self.rose = below
        factor = 1 + 0.01 * self.fast
        self.strength = self.strength * factor if below else self.strength / factor
