"""Runs put together into arms: accuracies, paired differences and costs, with their intervals."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

from smoothout.intervals import Estimate, mean_interval
from smoothout.report.record import ArmShown, Interval, RunShown, number
from smoothout.report.sources import RunFound, distinct
from smoothout.results.comparisons import ArmSummary, summarise
from smoothout.results.runs import EpochMetrics, RunResult

#: Settings that say what is trained on what; runs that differ in one of them are never compared.
TASK = ("dataset", "input_size", "holdout", "model", "model_config", "num_classes")
#: Data that are told apart by their folder alone.
BY_FOLDER = ("imagefolder", "imagenet")
#: Methods of two passes over each ghost batch.
TWICE = ("sam", "asam")
#: Settings that do not change what is learned.
SILENT = ("download", "workers", "device", "data_dir", "save_all", "checkpoint_every")


@dataclass(frozen=True)
class ArmFound:
    """Runs that differ in their seed alone."""

    name: str
    against: str | None
    runs: tuple[RunFound, ...]

    @property
    def settings(self) -> Mapping[str, Any]:
        """Of all its runs."""
        return self.runs[0].settings

    @property
    def finished(self) -> dict[int, RunResult]:
        """Results by seed."""
        return {run.seed: run.result for run in self.runs if run.result is not None}


def task(run: RunFound) -> tuple[str, ...]:
    """What is trained on what."""
    found = [str(run.settings.get(name)) for name in TASK]
    return (*found, str(run.settings.get("data_dir")) if run.settings.get("dataset") in BY_FOLDER else "")


def title(run: RunFound) -> str:
    """Model and data, in words."""
    options = str(run.settings.get("model_config") or "{}")
    more = "" if options == "{}" else f" ({options.strip('{}')})"
    return f"{run.settings.get('model')}{more} on {run.settings.get('dataset')}"


def arms_of(runs: Sequence[RunFound], against: str | None) -> list[ArmFound]:
    """Arms of the runs of one group, in order; ``against`` replaces what comparisons say.

    Runs of their own that differ in the seed alone are an arm; of two with the same seed each is in another arm.
    """
    together: dict[tuple[str, ...], list[RunFound]] = {}
    for run in runs:
        settings = tuple(f"{name}={value}" for name, value in run.settings.items())
        folder = str(run.path.resolve().parent.parent) if run.arm is not None else ""
        key = (folder, run.arm or "", *settings)
        while run.seed in (other.seed for other in together.get(key, ())):
            key = (*key, "again")
        together.setdefault(key, []).append(run)
    groups = [sorted(group, key=lambda run: run.seed) for group in together.values()]
    named = list(zip(_names(groups), groups, strict=True))
    names = [name for name, _ in named]
    arms = []
    for name, group in named:
        other = against if against in names else _rename(group, named)
        arms.append(ArmFound(name, None if other == name else other, tuple(group)))
    return arms


def _rename(group: Sequence[RunFound], named: Sequence[tuple[str, Sequence[RunFound]]]) -> str | None:
    """The name here of the arm that a comparison calls something else, perhaps."""
    folder = group[0].path.resolve().parent.parent
    for name, other in named:
        same = other[0].path.resolve().parent.parent == folder
        if same and group[0].against is not None and other[0].arm == group[0].against:
            return name
    return None


def _names(groups: Sequence[Sequence[RunFound]]) -> list[str]:
    """Short names; longer ones where two would be the same."""
    short = [group[0].arm or _own_name(group) for group in groups]
    longer = [
        name if short.count(name) == 1 else f"{_folder(group)}: {name}"
        for name, group in zip(short, groups, strict=True)
    ]
    return [name if longer.count(name) == 1 else str(group[0].path) for name, group in zip(longer, groups, strict=True)]


def _own_name(group: Sequence[RunFound]) -> str:
    """Of runs of their own: the folder's, or its parent's if folders are named by seed."""
    path = group[0].path.resolve()
    return path.parent.name if path.name.isdigit() else path.name


def _folder(group: Sequence[RunFound]) -> str:
    path = group[0].path.resolve()
    return path.parent.parent.name if group[0].arm is not None else path.parent.name


# -- numbers -----------------------------------------------------------------------------------------------


def show(arms: Sequence[ArmFound]) -> tuple[ArmShown, ...]:
    """Arms with their numbers."""
    results = {arm.name: arm.finished for arm in arms}
    summaries = summarise({arm.name: arm.against for arm in arms}, results)
    differing = _differing(arms)
    return tuple(_show(arm, summary, results, differing) for arm, summary in zip(arms, summaries, strict=True))


def _show(
    arm: ArmFound, summary: ArmSummary, results: Mapping[str, Mapping[int, RunResult]], differing: Sequence[str]
) -> ArmShown:
    runs = results[arm.name]
    process = next((run.process for run in arm.runs if run.process is not None), None)
    epochs = max((run.epochs for run in runs.values()), default=None)
    return ArmShown(
        name=arm.name,
        against=arm.against,
        settings={name: text(arm.settings.get(name)) for name in differing},
        command=process.command if process is not None else "",
        runs=tuple(map(_run, arm.runs)),
        test=interval(summary.test_last),
        test_best=interval(summary.test_best),
        holdout=interval(summary.holdout_last),
        train=interval(summary.train_last),
        difference=interval(summary.difference_last) if summary.difference_last is not None else None,
        difference_best=interval(summary.difference_best) if summary.difference_best is not None else None,
        updates=summary.updates if runs else None,
        passes=None if epochs is None else float(epochs * _passes(arm.settings)),
        seconds=interval(summary.seconds),
        times=None if summary.against is None else _times(runs, results[summary.against]),
    )


def _run(run: RunFound) -> RunShown:
    return RunShown(
        seed=run.seed,
        path=str(run.path),
        state=run.state,
        note=run.note,
        epochs=len(run.rows),
        planned=run.settings.get("epochs"),
        columns=columns_of(run.rows),
    )


def columns_of(rows: Sequence[EpochMetrics]) -> dict[str, tuple[float | None, ...]]:
    """Rows of ``metrics.csv`` as columns, by name."""
    return {
        field.name: tuple(number(float(getattr(row, field.name))) for row in rows) for field in fields(EpochMetrics)
    }


def _passes(settings: Mapping[str, Any]) -> int:
    """Passes over each sample in an epoch."""
    return int(settings.get("copies", 1)) * (2 if settings.get("method") in TWICE else 1)


def _times(runs: Mapping[int, RunResult], other: Mapping[int, RunResult]) -> Interval:
    """Ratio of wall times, paired by seed."""
    seeds = sorted(runs.keys() & other.keys())
    found = mean_interval([math.log(runs[seed].seconds / other[seed].seconds) for seed in seeds])
    mean, low, high = (number(math.exp(each)) for each in (found.mean, found.low, found.high))
    return Interval(mean, low, high, found.count)


def interval(estimate: Estimate) -> Interval:
    """An estimate as pages show it."""
    return Interval(number(estimate.mean), number(estimate.low), number(estimate.high), estimate.count)


# -- settings ----------------------------------------------------------------------------------------------


def _differing(arms: Sequence[ArmFound]) -> list[str]:
    """Names of the settings by which arms differ."""
    names = distinct(name for arm in arms for name in arm.settings)
    return [n for n in names if n not in SILENT and len({text(arm.settings.get(n)) for arm in arms}) > 1]


def shared(arms: Sequence[ArmFound]) -> dict[str, str]:
    """Settings that all arms share."""
    names = distinct(name for arm in arms for name in arm.settings)
    differing = set(_differing(arms))
    return {name: text(arms[0].settings.get(name)) for name in names if name not in differing}


def text(value: Any) -> str:
    """A setting in words.

    Example:
        >>> text(None), text(0.1), text([30, 60]), text(False)
        ('default', '0.1', '30, 60', 'no')
    """
    if value is None:
        return "default"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, (list, tuple)):
        return ", ".join(map(str, value)) or "none"
    return f"{value:g}" if isinstance(value, float) else str(value)
