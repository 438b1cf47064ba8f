"""The arithmetic of a run: which samples make an update, how many updates there are, and each one's rate."""

import math
from dataclasses import dataclass

from smoothout.large_batch import learning_rate_factor, partition
from smoothout.train.config import Settings


@dataclass(frozen=True)
class Plan:
    """Sizes and rates, all fixed before the first step.

    Attributes:
        batches: Samples of each batch of an epoch.
        updates_per_epoch: ceil(batches / accumulation).
        total_updates: Of the whole run.
        base_batch: Samples per update at which the given learning rate holds.
        peak_lr: The learning rate after the rule, before warm-up and decay.
    """

    settings: Settings
    batches: tuple[int, ...]
    updates_per_epoch: int
    total_updates: int
    base_batch: int
    peak_lr: float

    def lr(self, update: int) -> float:
        """Learning rate of an update, counted from 0: peak * warm-up * decay."""
        options = self.settings.optimization
        warm = min(1.0, (update + 1) / options.warmup_steps) if options.warmup_steps else 1.0
        if options.lr_schedule == "cosine":
            decay = (1 + math.cos(math.pi * update / self.total_updates)) / 2
        elif options.lr_schedule == "milestones":
            epoch = update // self.updates_per_epoch
            decay = options.lr_decay ** sum(epoch >= milestone for milestone in self.milestones)
        else:
            decay = 1.0
        return self.peak_lr * warm * decay

    @property
    def milestones(self) -> tuple[int, ...]:
        """Epochs at which the rate falls: as given, or half and three quarters of all."""
        epochs = self.settings.schedule.epochs
        return self.settings.optimization.milestones or (math.ceil(epochs / 2), math.ceil(epochs * 3 / 4))


def make_plan(settings: Settings, samples: int) -> Plan:
    """Plan a run over so many training samples."""
    batches = settings.batches
    sizes = tuple(partition(samples, batches.batch_size))
    base = settings.optimization.base_batch or batches.ghost_batch_size
    per_update = min(batches.batch_size * batches.accumulation, samples)
    factor = learning_rate_factor(settings.optimization.lr_rule, per_update, base)
    updates = -(-len(sizes) // batches.accumulation)
    return Plan(settings, sizes, updates, updates * settings.schedule.epochs, base, settings.optimization.lr * factor)
