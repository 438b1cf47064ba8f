"""Regimes of the original program: optimizer settings by the epoch from which they hold."""

from collections.abc import Mapping
from typing import Any

Regime = dict[int, dict[str, Any]]


def sgd(learning_rates: Mapping[int, float], weight_decay: float) -> Regime:
    """SGD with momentum 0.9; the learning rates by epoch, from epoch 0 on.

    Example:
        >>> sgd({0: 0.1, 30: 0.01}, 0.0)[30]
        {'lr': 0.01}
    """
    regime: Regime = {epoch: {"lr": lr} for epoch, lr in learning_rates.items()}
    regime[0] = {"optimizer": "SGD", "lr": learning_rates[0], "momentum": 0.9, "weight_decay": weight_decay}
    return regime
