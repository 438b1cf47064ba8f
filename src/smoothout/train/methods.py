"""The methods behind ``--method``: what each makes of the settings, and how it makes an update."""

import dataclasses
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, Protocol

import torch
from torch import nn
from torch.optim import swa_utils

from smoothout import _checks
from smoothout._types import Scale, ScheduleName
from smoothout.momentum_sam import MomentumSAM
from smoothout.running_stats import frozen_running_stats, recompute_running_stats
from smoothout.scope import Block
from smoothout.train import passes, regime
from smoothout.train.config import Noise, Rival, Settings

#: What a method sets of the noise. LPF: Bisla et al. 2022 (arXiv 2201.08025); m-RWP: Li et al. 2024 (arXiv 2404.00357).
NOISES: dict[str, dict[str, Any]] = {
    "lpf": {"distribution": "normal", "scale": "filter", "noise_schedule": "cosine"},
    "mrwp": {"distribution": "normal", "scale": "filter", "clean_share": 0.5},
}
RHO = {"momentum_sam": 0.3, "sam": 0.05, "asam": 0.5}
TWO_PASSES = ("sam", "asam")
_OWN = {"rho": tuple(RHO), "average_decay": ("ema",), "average_start": ("swa",)}
AVERAGE_DECAY, _START = 0.99, 0.75


def default(name: str, method: str) -> float | None:
    """Of a method's own setting; None for what is no such setting."""
    return {"rho": RHO.get(method), "average_decay": AVERAGE_DECAY, "average_start": _START}.get(name)


def check(settings: Settings) -> None:
    """Raise where a method cannot go with an option.

    Raises:
        ValueError: Naming the option and the remedy.
    """
    rival, noise, method = settings.rival, settings.noise, settings.rival.method
    _checks.one_of("scale", noise.scale, Scale)
    _checks.one_of("noise_schedule", noise.noise_schedule, ScheduleName)
    for name, methods in _OWN.items():
        value = getattr(rival, name)
        if value is not None and method not in methods:
            raise ValueError(
                f"{name} is {value} and the method {method}, which has none; expected {' or '.join(methods)}. Leave "
                f"--{name.replace('_', '-')} out, or give --method {methods[0]}."
            )
    if method in RHO and noise.on:
        raise ValueError(
            f"strength is {noise.strength} and the method {method}, which has no noise. Leave --strength out, or "
            f"--method."
        )
    if method in NOISES:
        _check_noise(noise, method)
    if noise.strength == "auto":
        _check_auto(settings)
    check_ghosts(settings, [settings.batches.batch_size] * settings.batches.accumulation)
    if method in TWO_PASSES and settings.schedule.precision == "fp16":
        raise ValueError(
            f"precision is fp16 and the method {method}, whose first pass a gradient scaler does not know. Use bf16 or "
            f"fp32."
        )
    if method in RHO and settings.batches.copies > 1:
        raise ValueError(
            f"copies is {settings.batches.copies} and the method {method}, which draws nothing: all copies would be "
            f"equal. Leave --copies out."
        )


def _check_noise(noise: Noise, method: str) -> None:
    if not noise.on:
        raise ValueError(f"the method is {method} and strength 0, so that there is no noise. Give --strength.")
    for name, value in NOISES[method].items():
        given, default = getattr(noise, name), getattr(Noise(), name)
        if given not in (default, value):
            raise ValueError(
                f"{name} is {given!r} and the method {method}, which means {value!r}. Leave "
                f"--{name.replace('_', '-')} out, or --method."
            )


def _check_auto(settings: Settings) -> None:
    schedule, method = noise_of(settings).noise_schedule, settings.rival.method
    if schedule != "constant" and schedule == NOISES.get(method, {}).get("noise_schedule"):
        raise ValueError(
            f"strength is 'auto' and the method {method}, whose schedule {schedule!r} would undo what is found. Leave "
            f"--method out, or give a number."
        )
    if schedule != "constant":
        raise ValueError(
            f"strength is 'auto' and the noise schedule {schedule!r}, which would undo what is found. Leave "
            f"--noise-schedule out, or give a number."
        )


def check_ghosts(settings: Settings, batches: Sequence[int]) -> None:
    """Raise if all passes of an epoch's first update, which is made of batches of these sizes, stay clean.

    Raises:
        ValueError: Naming the sizes and the remedy.
    """
    noise = noise_of(settings)
    if not noise.on or not (noise.strength == "auto" or noise.clean_share > 0):
        return
    sizes = passes.sizes(settings.batches, batches[: settings.batches.accumulation])
    if len(sizes) < 2:
        why = "strength is 'auto'" if noise.strength == "auto" else f"clean_share is {noise.clean_share:g}"
        if settings.batches.noise_per == "batch":
            raise ValueError(
                f"{why}, noise_per is 'batch' and an update has one batch of {sum(sizes)} samples, which stays clean; "
                f"expected two or more. Give --accumulation 2 or more, or leave --noise-per out."
            )
        raise ValueError(
            f"{why} and an update has one ghost batch of {sum(sizes)} samples, which stays clean; expected two "
            f"or more. Give a --ghost-batch-size below {sum(sizes)}, or more samples."
        )


def check_left_noise(settings: Settings, batches: Sequence[int], processes: int) -> None:
    """Raise if noise that stays in the weights would not be the same in all processes.

    Raises:
        ValueError: Naming the remedy.
    """
    noise = settings.noise
    if noise.denoise or not noise.on or processes == 1:
        return
    if noise.sync != "shared":
        raise ValueError(
            f"denoise is off and sync {noise.sync!r} in {processes} processes, whose weights would drift apart. Give "
            f"--sync shared, leave --no-denoise out, or train in one process."
        )
    counts = map(len, passes.updates(settings.batches, batches))
    uneven = next((count for count in counts if count % processes), None)
    if uneven is not None:
        raise ValueError(
            f"denoise is off and an update has {uneven} ghost batches for {processes} processes, which would leave "
            f"noise in their weights unequally often; expected a multiple of {processes}. Choose another --batch-size "
            f"or number of processes, or leave --no-denoise out."
        )


def check_momentum(settings: Settings, phases: Iterable[regime.Phase]) -> None:
    """Raise if the method follows the momentum and an epoch has none.

    Raises:
        ValueError: Of :class:`MomentumSAM`, which says what it expects.
    """
    if settings.rival.method != "momentum_sam":
        return
    for phase in phases:
        weight = nn.Parameter(torch.zeros(1))
        MomentumSAM([("weight", weight)], regime.make_optimizer(phase, [weight], phase.lr), 0.0)


def noise_of(settings: Settings) -> Noise:
    """The noise as the method has it."""
    return dataclasses.replace(settings.noise, **NOISES.get(settings.rival.method, {}))


def sam_arguments(rival: Rival) -> dict[str, Any] | None:
    """Arguments of pytorch-optimizer's SAM, None for a method of one pass."""
    if rival.method not in TWO_PASSES:
        return None
    return {"rho": RHO[rival.method] if rival.rho is None else rival.rho, "adaptive": rival.method == "asam"}


class Perturbing(Protocol):
    """What the loop asks of noise or of Momentum-SAM."""

    def perturbed(self, stream: int | None = None, draw: int = 0) -> Block:
        """See :class:`smoothout.scope.Scope`."""

    def step(self) -> None:
        """Count an update."""


def momentum_sam(settings: Settings, network: nn.Module, optimizer: Any) -> MomentumSAM | None:
    """Of that method, None for others."""
    rival = settings.rival
    if rival.method != "momentum_sam":
        return None
    return MomentumSAM(network, optimizer, RHO["momentum_sam"] if rival.rho is None else rival.rho)


def update(network: nn.Module, optimizer: Any, learn: Callable[[bool], None], clip: Callable[[], None]) -> None:
    """Make one update; ``learn`` adds the gradients of all ghost batches, and is told whether it does so first."""
    learn(True)
    inner = optimizer.optimizer
    if not hasattr(inner, "first_step"):
        clip()
        optimizer.step()
        return
    inner.first_step(zero_grad=True)
    with frozen_running_stats(network):  # they are of the weights that are kept
        learn(False)
    clip()
    inner.second_step()


class Average:
    """Averaged weights, for ema and swa.

    Args:
        rival: Its settings.
        network: The one that is trained; before Accelerate has wrapped its forward.
        epochs: Of the run.
    """

    def __init__(self, rival: Rival, network: nn.Module, epochs: int) -> None:
        self._by_update = rival.method == "ema"
        start = _START if rival.average_start is None else rival.average_start
        self._start = 0 if self._by_update else min(int(start * epochs), epochs - 1)
        decay = AVERAGE_DECAY if rival.average_decay is None else rival.average_decay
        average: Any = swa_utils.get_ema_multi_avg_fn(decay) if self._by_update else swa_utils.get_swa_multi_avg_fn()  # type: ignore[no-untyped-call]
        self.model = swa_utils.AveragedModel(network, multi_avg_fn=average)

    @property
    def network(self) -> nn.Module:
        """With the averaged weights."""
        made: nn.Module = self.model.module
        return made

    def updated(self, network: nn.Module, epoch: int, last_of_epoch: bool) -> None:
        """Take an update in; ``epoch`` counts from 0."""
        if self._by_update or (last_of_epoch and epoch >= self._start):
            self.model.update_parameters(network)

    def ready(self, network: nn.Module, batches: Callable[[], Iterator[torch.Tensor]]) -> None:
        """Bring the averaged network's BatchNorm to its weights; before any update was taken in, copy the other's."""
        if int(self.model.n_averaged) == 0:
            self.network.load_state_dict(network.state_dict())
        else:
            recompute_running_stats(self.network, batches())


def average(settings: Settings, network: nn.Module, epochs: int) -> Average | None:
    """Of ema and swa, None for others."""
    return Average(settings.rival, network, epochs) if settings.rival.method in ("ema", "swa") else None
