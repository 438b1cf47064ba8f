"""What a diagnosis of a run returns."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from smoothout.intervals import Estimate
from smoothout.results.gradient_noise import NoiseScale
from smoothout.results.scan import Scan


@dataclass(frozen=True)
class Facts:
    """What a run was and where it ended; accuracies in percent, of the clean weights after the last epoch.

    Attributes:
        updates: Optimizer steps that were made.
        planned: Optimizer steps of the whole run.
        samples_per_update: Batch size times accumulation.
        train_accuracy, holdout_accuracy: On all training samples, and held out.
        train_loss, holdout_loss: Nats.
        at_start, at_end: Gradient noise scale of the initial and of the last weights.
    """

    updates: int
    planned: int
    samples_per_update: int
    train_accuracy: float
    holdout_accuracy: float
    train_loss: float
    holdout_loss: float
    at_start: NoiseScale
    at_end: NoiseScale

    @property
    def gap(self) -> float:
        """Train minus hold-out accuracy, points."""
        return self.train_accuracy - self.holdout_accuracy


@dataclass(frozen=True)
class Effect:
    """What one change of the settings does to hold-out accuracy.

    Attributes:
        kind: "updates", "tuning" or "noise".
        name: In words.
        changes: Of the settings.
        difference: Paired, in points, over seeds.
        train: Difference in training accuracy, the same way.
        errors: Of its runs that failed, which both leave out.
        scale: Of the noise, where that was the change.
    """

    kind: str
    name: str
    changes: Mapping[str, Any]
    difference: Estimate
    train: Estimate
    errors: tuple[str, ...] = ()
    scale: str | None = None


@dataclass(frozen=True)
class Verdict:
    """What to do, why, and how sure that is."""

    advice: str
    reason: str
    doubt: str


@dataclass(frozen=True)
class Diagnosis:
    """All of it; verdicts in the order in which to follow them.

    Attributes:
        trial_updates: Optimizer steps of the run as it is, in the trials.
    """

    facts: Facts
    scans: tuple[Scan, ...]
    effects: tuple[Effect, ...]
    verdicts: tuple[Verdict, ...]
    trial_updates: int
