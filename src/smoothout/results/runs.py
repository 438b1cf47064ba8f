"""What a run of training leaves behind."""

import csv
import json
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from smoothout.results.files import write_text


@dataclass(frozen=True)
class Risk:
    """Loss and errors of a network on a data set.

    Attributes:
        loss: Mean loss per sample, nats.
        error1, error5: Share of samples whose class is not the first, or not among the first five, in percent.
        samples: Number of samples.
    """

    loss: float
    error1: float
    error5: float
    samples: int


@dataclass(frozen=True)
class EpochMetrics:
    """One row of ``metrics.csv``.

    Attributes:
        epoch: Finished epochs, from 1.
        train_loss, train_error1, train_error5: As training saw it: under noise and augmentation, averaged
            over the epoch while the weights changed. Errors in percent.
        holdout_loss, ...: Of the clean weights after the epoch; nan where that was not evaluated.
        lr, strength, r: Learning rate, strength times schedule, and relative noise at the epoch's last update.
        updates: Optimizer steps so far.
        distance: L2 distance of all weights from their start.
        seconds: Wall time of the epoch, evaluation included.
        samples_per_second: Training samples per second, evaluation left out.
    """

    epoch: int
    train_loss: float
    train_error1: float
    train_error5: float
    holdout_loss: float
    holdout_error1: float
    holdout_error5: float
    test_loss: float
    test_error1: float
    test_error5: float
    lr: float
    strength: float
    r: float
    updates: int
    distance: float
    seconds: float
    samples_per_second: float


@dataclass(frozen=True)
class RunResult:
    """How a finished run ended; ``result.json``. Accuracies in percent, of the clean weights without augmentation.

    Attributes:
        seed: Of the run.
        epochs, updates: Made in all.
        best_epoch: The epoch with the lowest hold-out error (of equals the lowest hold-out loss).
        train_accuracy_last, holdout_accuracy_last, test_accuracy_last: After the last epoch.
        holdout_accuracy_best, test_accuracy_best: After ``best_epoch``.
        train_loss_last, holdout_loss_last, test_loss_last: After the last epoch, nats.
        seconds: Wall time of all epochs.
    """

    seed: int
    epochs: int
    updates: int
    best_epoch: int
    train_accuracy_last: float
    holdout_accuracy_last: float
    test_accuracy_last: float
    holdout_accuracy_best: float
    test_accuracy_best: float
    train_loss_last: float
    holdout_loss_last: float
    test_loss_last: float
    seconds: float


def read_run(path: Path) -> RunResult:
    """Read ``result.json``."""
    return RunResult(**json.loads(path.read_text(encoding="utf-8")))


def write_metrics(path: Path, rows: list[EpochMetrics]) -> None:
    """Write ``metrics.csv``, a line per epoch."""
    names = [field.name for field in fields(EpochMetrics)]
    lines = [",".join(names)]
    lines += [",".join(repr(getattr(row, name)) for name in names) for row in rows]
    write_text(path, "\n".join(lines) + "\n")


def read_metrics(path: Path) -> list[EpochMetrics]:
    """Read ``metrics.csv``."""
    kinds: dict[str, Any] = {field.name: int if field.type is int else float for field in fields(EpochMetrics)}
    with path.open(encoding="utf-8", newline="") as file:
        return [EpochMetrics(**{k: kinds[k](v) for k, v in row.items()}) for row in csv.DictReader(file)]
