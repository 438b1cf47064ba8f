"""How the strength changes with the number of updates made: step t -> factor.

Sources: constant, anneal and tanh are the original SmoothOut program's; cosine is LPF-SGD's
(Bisla, Wang, Choromanska 2022, arXiv 2201.08025).
"""

import functools
import math

from smoothout import _checks
from smoothout._types import Schedule, ScheduleName


def constant(_step: int) -> float:
    """1 at every step."""
    return 1.0


def anneal(step: int, *, index: float) -> float:
    """sqrt((1 + t)^-index): falls from 1."""
    return math.sqrt((1 + step) ** -index)


def tanh(step: int, *, scale: float, total_steps: int) -> float:
    """(1 + tanh(scale (t / T - 1/2))) / 2: rises from about 0 to about 1."""
    return (1 + math.tanh(scale * (step / total_steps - 0.5))) / 2


def cosine(step: int, *, gain: float, total_steps: int) -> float:
    """1 + gain (1 - cos(pi t / T)) / 2: rises from 1 to 1 + gain."""
    return 1 + gain * (1 - math.cos(math.pi * step / total_steps)) / 2


#: Schedules that are made for a number of steps and have no value past it.
BOUNDED = ("tanh", "cosine")


def resolve(
    schedule: ScheduleName | Schedule,
    *,
    anneal_index: float,
    tanh_scale: float,
    cosine_gain: float,
    total_steps: int | None,
) -> Schedule:
    """The schedule of a name, refusing one that needs ``total_steps`` and lacks it; a function is its own."""
    if not isinstance(schedule, str):
        if not callable(schedule):
            raise TypeError(f"schedule is {schedule!r}; expected a name or a function of the number of updates made.")
        return schedule
    _checks.one_of("schedule", schedule, ScheduleName)
    if schedule == "constant":
        return constant
    if schedule == "anneal":
        index = _checks.nonnegative("anneal_index", anneal_index, "The original uses 0.55.")
        return functools.partial(anneal, index=index)
    if total_steps is None:
        raise ValueError(
            f"schedule={schedule!r} needs total_steps, the number of optimizer steps of the whole run, "
            f"and got None. Pass total_steps=epochs * steps_per_epoch."
        )
    if schedule == "tanh":
        scale = _checks.nonnegative("tanh_scale", tanh_scale, "The original uses 10.")
        return functools.partial(tanh, scale=scale, total_steps=total_steps)
    gain = _checks.nonnegative("cosine_gain", cosine_gain, "LPF-SGD uses 15.")
    return functools.partial(cosine, gain=gain, total_steps=total_steps)
