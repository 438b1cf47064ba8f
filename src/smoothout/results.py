"""Records that one part of the project hands to another; no torch here."""

import csv
import json
from dataclasses import asdict, dataclass, fields, is_dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class TensorNoise:
    """What the noise does to one parameter.

    Attributes:
        name: As ``named_parameters()`` gives it.
        shape: Of the parameter.
        filters: Number of filters.
        left_out: Why it gets no noise, None if it does.
        relative_noise: r = ||realised offset|| / ||weights|| of this draw, after rounding to the weights'
            type; 0 if it gets none, nan for weights that are all zero.
    """

    name: str
    shape: tuple[int, ...]
    filters: int
    left_out: str | None
    relative_noise: float

    @property
    def weights(self) -> int:
        """Number of elements."""
        count = 1
        for length in self.shape:
            count *= length
        return count


@dataclass(frozen=True)
class NoiseSummary:
    """Which weights are perturbed and by how much; ``print`` it for a table.

    Attributes:
        tensors: Every parameter of the model, perturbed or not.
        relative_noise: r over all perturbed weights together.
        amplitude: Strength times the schedule's factor, at the step of the summary.
    """

    tensors: tuple[TensorNoise, ...]
    relative_noise: float
    amplitude: float

    @property
    def perturbed(self) -> tuple[TensorNoise, ...]:
        """The tensors that get noise."""
        return tuple(tensor for tensor in self.tensors if tensor.left_out is None)

    @property
    def weights(self) -> int:
        """Number of perturbed weights."""
        return sum(tensor.weights for tensor in self.perturbed)

    def __str__(self) -> str:
        width = max([len(tensor.name) for tensor in self.tensors] + [9])
        lines = [f"{'parameter':<{width}}  {'shape':<18} {'filters':>8}  relative noise r"]
        for tensor in self.tensors:
            noise = f"{tensor.relative_noise:.4g}" if tensor.left_out is None else f"- ({tensor.left_out})"
            lines.append(f"{tensor.name:<{width}}  {tensor.shape!s:<18} {tensor.filters:>8}  {noise}")
        lines.append(
            f"{len(self.perturbed)} of {len(self.tensors)} tensors, {self.weights:,} weights perturbed; "
            f"amplitude {self.amplitude:.4g}, r = {self.relative_noise:.4g}"
        )
        return "\n".join(lines)


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


def write_text(path: Path, text: str) -> None:
    """Write a file so that a reader finds the old text or the new, never a part."""
    new = path.with_name(path.name + ".new")
    new.write_text(text, encoding="utf-8")
    new.replace(path)


def write_json(path: Path, record: Any) -> None:
    """Write a dataclass, or plain lists and dicts of them, as JSON."""
    write_text(path, json.dumps(record, default=_as_plain, indent=2) + "\n")


def _as_plain(value: Any) -> Any:
    if is_dataclass(value) and not isinstance(value, type):
        return asdict(value)
    if isinstance(value, Path):
        return str(value)
    raise TypeError(f"cannot write a {type(value).__name__} as JSON: {value!r}")


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
