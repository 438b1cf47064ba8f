"""The arithmetic of a run: which samples make an update, how many updates there are, and each one's rate."""

import math
from dataclasses import dataclass

from smoothout.large_batch import learning_rate_factor, partition
from smoothout.train.config import Settings
from smoothout.train.regime import ModelRegime, Phase, resolve


@dataclass(frozen=True)
class Plan:
    """Sizes and rates, all fixed before the first step.

    Attributes:
        batches: Samples of each batch of an epoch.
        updates_per_epoch: ceil(batches / accumulation).
        epochs: Of the whole run, after regime adaptation.
        stretch: Factor of the regime adaptation.
        base_batch: Samples per update at which the given learning rate holds.
        lr_factor: Of the learning-rate rule.
        phases: How the optimizer is set in each epoch.
    """

    settings: Settings
    batches: tuple[int, ...]
    updates_per_epoch: int
    epochs: int
    stretch: int
    base_batch: int
    lr_factor: float
    phases: tuple[Phase, ...]

    @property
    def total_updates(self) -> int:
        """Of the whole run."""
        return self.updates_per_epoch * self.epochs

    def lr(self, update: int) -> float:
        """Learning rate of an update, counted from 0: rate of its epoch * rule * warm-up * cosine."""
        options = self.settings.optimization
        warm = min(1.0, (update + 1) / options.warmup_steps) if options.warmup_steps else 1.0
        cosine = 1.0
        if options.lr_schedule == "cosine":
            cosine = (1 + math.cos(math.pi * update / self.total_updates)) / 2
        return self.phases[update // self.updates_per_epoch].lr * self.lr_factor * warm * cosine


def make_plan(settings: Settings, samples: int, model_regime: ModelRegime | None = None) -> Plan:
    """Plan a run over so many training samples, with the regime that the model carries."""
    batches, schedule = settings.batches, settings.schedule
    sizes = tuple(partition(samples, batches.batch_size))
    base = settings.optimization.base_batch or batches.ghost_batch_size
    per_update = min(batches.batch_size * batches.accumulation, samples)
    factor = stretch(settings, per_update)
    epochs = schedule.epochs * factor
    if schedule.start_epoch >= epochs:
        raise ValueError(f"start_epoch is {schedule.start_epoch} of {epochs} epochs; expected it below them.")
    return Plan(
        settings,
        sizes,
        updates_per_epoch=-(-len(sizes) // batches.accumulation),
        epochs=epochs,
        stretch=factor,
        base_batch=base,
        lr_factor=learning_rate_factor(settings.optimization.lr_rule, per_update, base),
        phases=resolve(settings.optimization, model_regime, epochs, factor),
    )


def stretch(settings: Settings, samples_per_update: int) -> int:
    """Factor on the epochs: regime adaptation makes as many updates as the base batch would.

    Hoffer et al. 2017 (arXiv 1705.08741), section 5.
    """
    schedule = settings.schedule
    base = settings.optimization.base_batch or settings.batches.ghost_batch_size
    return schedule.regime_multiplier * (math.ceil(samples_per_update / base) if schedule.regime_adaptation else 1)
