"""What a comparison of arms over seeds is, and what its runs say."""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from smoothout import _checks
from smoothout.intervals import Estimate, mean_interval
from smoothout.results.files import holds
from smoothout.results.runs import RunResult

NAME = "comparison.json"


@dataclass(frozen=True)
class ComparedArm:
    """An arm as it is written down.

    Attributes:
        against: The arm that it is compared with, None for itself.
        settings: All but the seed, by groups, as in a run's ``config.json``.
    """

    against: str | None
    settings: Mapping[str, Any]


@dataclass(frozen=True)
class Comparison:
    """Which arms are trained with which seeds; ``comparison.json``."""

    seeds: tuple[int, ...]
    arms: Mapping[str, ComparedArm]

    def folder(self, arm: str, seed: int) -> Path:
        """Folder of a run, relative to the comparison's; it may not be there yet."""
        _checks.known("the arm", arm, self.arms)
        return Path(slug(arm)) / str(seed)


@dataclass(frozen=True)
class ArmSummary:
    """An arm over its seeds; accuracies in percent, differences in points, paired by seed.

    Attributes:
        arm: Its name.
        runs: Finished ones.
        test_last, test_best, train_last, holdout_last: After the last epoch, and after the best one by hold-out.
        seconds: Wall time of a run.
        updates: Of a run.
        against: The arm that it is compared with; None if it is compared with none, or itself.
        difference_last, difference_best: In test accuracy, over the seeds that both finished; None without against.
    """

    arm: str
    runs: int
    test_last: Estimate
    test_best: Estimate
    train_last: Estimate
    holdout_last: Estimate
    seconds: Estimate
    updates: int
    against: str | None
    difference_last: Estimate | None
    difference_best: Estimate | None


def slug(name: str) -> str:
    """A folder's name for an arm.

    Example:
        >>> slug("large batch + SmoothOut")
        'large-batch-smoothout'
    """
    return re.sub(r"[^a-z0-9.]+", "-", name.lower()).strip("-")


def is_comparison(folder: Path) -> bool:
    """Whether a folder is a comparison's."""
    return holds(folder / NAME, "arms")


def read_comparison(folder: Path) -> Comparison:
    """Read ``comparison.json`` of a folder.

    Raises:
        FileNotFoundError: If it is not there.
        ValueError: If it is another program's, or a part of a file.
    """
    path = folder / NAME
    if not path.is_file():
        raise FileNotFoundError(f"{path} is not there; expected the folder of a comparison, such as runs/NAME.")
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        arms = {name: ComparedArm(arm["against"], json.loads(arm["settings"])) for name, arm in content["arms"].items()}
        return Comparison(tuple(map(int, content["seeds"])), arms)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(
            f"{path} cannot be read ({type(error).__name__}: {error}); expected what smoothout compare wrote. Name "
            f"another folder, or start the comparison again with --overwrite."
        ) from error


def summarise(
    arms_against: Mapping[str, str | None], finished: Mapping[str, Mapping[int, RunResult]]
) -> list[ArmSummary]:
    """Means and 95 % intervals of each arm, and paired differences over the seeds that both arms finished.

    Args:
        arms_against: Of each arm the one that it is compared with, None or itself for none.
        finished: Results by arm and seed; arms without any may be left out.
    """
    summaries = []
    for arm, against in arms_against.items():
        runs = finished.get(arm, {})
        other = finished.get(against, {}) if against not in (None, arm) else None
        summaries.append(
            ArmSummary(
                arm=arm,
                runs=len(runs),
                test_last=_mean(runs, "test_accuracy_last"),
                test_best=_mean(runs, "test_accuracy_best"),
                train_last=_mean(runs, "train_accuracy_last"),
                holdout_last=_mean(runs, "holdout_accuracy_last"),
                seconds=_mean(runs, "seconds"),
                updates=max((run.updates for run in runs.values()), default=0),
                against=against if other is not None else None,
                difference_last=None if other is None else _paired(runs, other, "test_accuracy_last"),
                difference_best=None if other is None else _paired(runs, other, "test_accuracy_best"),
            )
        )
    return summaries


def _mean(runs: Mapping[int, RunResult], name: str) -> Estimate:
    return mean_interval([getattr(run, name) for run in runs.values()])


def _paired(runs: Mapping[int, RunResult], other: Mapping[int, RunResult], name: str) -> Estimate:
    seeds = sorted(runs.keys() & other.keys())
    return mean_interval([getattr(runs[seed], name) - getattr(other[seed], name) for seed in seeds])
