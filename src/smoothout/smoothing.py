"""SmoothOut and AdaSmoothOut: noise on the weights for the length of a ``with`` block."""

import sys
import warnings
from collections.abc import Callable, Iterable
from types import TracebackType
from typing import Any, NoReturn, Self, TypedDict, Unpack

import torch
from torch import nn
from torch.optim.optimizer import register_optimizer_step_pre_hook
from torch.utils.hooks import RemovableHandle

from smoothout import _checks, schedules, weights
from smoothout._types import Distribution, OneDimensional, Scale, Schedule, ScheduleName
from smoothout.noise.draws import NoiseKey
from smoothout.results.noise import NoiseSummary, TensorNoise
from smoothout.scaling import offsets
from smoothout.weights import Exclude, Snapshot, Weight, exclude_batch_norm

#: Tensors are perturbed in groups of about this many elements, so that few draws are in memory at a time.
#: A larger tensor is a group of its own.
GROUP_ELEMENTS = 1 << 20


class SmoothOut:
    r"""Weight-noise smoothing of the loss (Wen et al. 2018, arXiv 1805.07898).

    Stochastic gradient descent on

    .. math:: \bar C(w) = E_\theta[C(w + \theta)],  \theta_i \sim U(-a, a)

    Inside ``with smoother.perturbed():`` the weights are w + theta; leaving it restores w bit for bit, so
    the gradients taken inside are those of the smoothed loss and the optimizer steps from the clean
    weights. Without scaling and before clipping the gradient is unbiased; with ``scale="weight"`` or
    ``"filter"`` theta depends on w, and that term of the chain rule is dropped. To second order
    Cbar = C + (a^2 / 6) tr H.

    It is no optimizer and wraps none: mixed precision, accumulation, clipping and schedulers stay as they
    are. The global random state is never touched. At strength 0, or before ``start_step``, a block leaves the
    weights alone, versions included. Parameters added, frozen, unfrozen, moved or cast later are followed.

    Args:
        model_or_named_parameters: A model, or pairs (name, parameter). Pairs know no modules, so the
            default ``exclude`` cannot recognise BatchNorm in them.
        strength: a >= 0, in units of the weights (scale "none") or relative to them.
        scale: "none", "weight" (a |w_i|) or "filter" (a ||w_f||); see :mod:`smoothout.scaling`.
        distribution: "uniform" on (-1, 1) or standard "normal".
        schedule: Name of a factor on the strength, or a function of the number of updates made; see
            :mod:`smoothout.schedules`.
        anneal_index, tanh_scale, cosine_gain: Constants of those schedules.
        total_steps: Optimizer steps of the whole run; "tanh" and "cosine" need it.
        start_step: Updates before the noise starts. The schedule counts from the run's start, not from it.
        exclude: ``(name, module, parameter) -> bool``, True for what gets no noise; by default every
            BatchNorm. ``model.quiet_parameters`` (names) and frozen parameters are always left out.
        one_dimensional: With scale "filter" every element of a 1-D or 0-D parameter is a filter of its own, so
            its noise is a |w_i| up to the sign; "original" keeps that, "skip" leaves such parameters alone
            at every scale.
        denoise: False leaves the noise in the weights, where it accumulates: the contrast the paper draws.
        seed: Of the noise, 64 bits.

    Raises:
        ValueError, TypeError: For values out of range, a schedule without its ``total_steps``, a model in
            DataParallel, or a parameter that cannot be perturbed.

    Example:
        >>> import torch
        >>> model = torch.nn.Linear(2, 1)
        >>> smoother = SmoothOut(model, strength=0.05)
        >>> before = model.weight.detach().clone()
        >>> with smoother.perturbed():
        ...     moved = not torch.equal(model.weight, before)
        ...     model(torch.ones(3, 2)).sum().backward()
        >>> moved, torch.equal(model.weight, before)
        (True, True)
        >>> smoother.step()

    Deviations from the original program: docs/decisions/0006-deviations-from-the-original.md.
    """

    def __init__(
        self,
        model_or_named_parameters: nn.Module | Iterable[tuple[str, nn.Parameter]],
        strength: float,
        *,
        scale: Scale = "none",
        distribution: Distribution = "uniform",
        schedule: ScheduleName | Schedule = "constant",
        anneal_index: float = 0.55,
        tanh_scale: float = 10.0,
        cosine_gain: float = 15.0,
        total_steps: int | None = None,
        start_step: int = 0,
        exclude: Exclude = exclude_batch_norm,
        one_dimensional: OneDimensional = "original",
        denoise: bool = True,
        seed: int = 0,
    ) -> None:
        _checks.one_of("scale", scale, Scale)
        _checks.one_of("distribution", distribution, Distribution)
        _checks.one_of("one_dimensional", one_dimensional, OneDimensional)
        _checks.whole("start_step", start_step, at_least=0)
        if total_steps is not None:
            _checks.whole("total_steps", total_steps, at_least=1)
            if start_step >= total_steps:
                raise ValueError(
                    f"start_step is {start_step} of total_steps {total_steps}, so the noise would never start; "
                    f"expected start_step < total_steps."
                )
        self.strength = strength
        self.seed = _checks.whole("seed", seed, at_least=0, below=2**64)
        self._scale: Scale = scale
        self._distribution: Distribution = distribution
        self._one_dimensional: OneDimensional = one_dimensional
        if not callable(exclude):
            raise TypeError(
                f"exclude is a {type(exclude).__name__}; expected a function (name, module, parameter) -> bool. "
                f"For names: exclude=lambda name, module, parameter: name in names."
            )
        self._exclude = exclude
        self._denoise = denoise
        self._total_steps = total_steps
        self._start_step = start_step
        self._schedule_name = schedule if isinstance(schedule, str) else "custom"
        self._schedule = schedules.resolve(
            schedule,
            anneal_index=anneal_index,
            tanh_scale=tanh_scale,
            cosine_gain=cosine_gain,
            total_steps=total_steps,
        )
        self._schedule_constants = (anneal_index, tanh_scale, cosine_gain)
        self._source: nn.Module | list[tuple[str, nn.Parameter]]
        if isinstance(model_or_named_parameters, nn.Module):
            _refuse_data_parallel(model_or_named_parameters)
            self._source = model_or_named_parameters
        elif isinstance(model_or_named_parameters, Iterable):
            self._source = list(model_or_named_parameters)
        else:
            raise TypeError(
                f"expected a model or pairs (name, parameter), got a {type(model_or_named_parameters).__name__}. "
                f"Pass the model itself: no optimizer is wrapped."
            )
        self._updates = 0
        self._streams = 0
        self._open: _Block | None = None
        self._made: _Block | None = None  # the last one, until it is entered
        self._snapshot = Snapshot()
        self._versions_left: list[int] | None = None
        self._warned = False
        self._signature: list[tuple[object, ...]] = []
        self._select()

    # -- the block -----------------------------------------------------------------------------------------

    def perturbed(self, stream: int | None = None, draw: int = 0, *, antithetic: bool = False) -> "_Block":
        """A ``with`` block inside which the weights carry noise; leaving it restores them bit for bit.

        Args:
            stream: Index of the ghost batch in the whole batch; counted since the last :meth:`step` if not
                given. Equal (seed, step, stream, draw) give equal noise.
            draw: Tells copies of the same ghost batch apart.
            antithetic: Subtract the noise instead of adding it. The mean over both signs of a draw has no term linear
                in the noise.

        Raises:
            RuntimeError: If a block is open already, or if the weights were written inside it.
            ValueError: If the run is past ``total_steps`` of a schedule that needs it, or a schedule
                returns no finite number >= 0.

        ``optimizer.step()`` and :meth:`step` belong after the block, ``loss.backward()`` inside it: a
        backward pass after the block raises, since the weights that autograd saved have changed. (Within
        activation checkpointing nothing is saved and a late backward goes unnoticed: it recomputes the forward
        pass with the weights as they are then.)
        """
        if stream is not None:
            stream = _checks.whole("stream", stream, at_least=0, below=2**32)
        draw = _checks.whole("draw", draw, at_least=0, below=2**32)
        caller = sys._getframe(1)
        self._made = _Block(self, stream, draw, antithetic, f"{caller.f_code.co_filename}:{caller.f_lineno}")
        return self._made

    def step(self) -> None:
        """Count one optimizer step. Call it after ``optimizer.step()``, also where a GradScaler skipped that."""
        self._refuse_open("step()")
        if self._made is not None:
            warnings.warn(
                f"the block made at {self._made.place} was never entered, so there was no noise. "
                f"Write `with smoother.perturbed():` around forward and backward.",
                RuntimeWarning,
                stacklevel=2,
            )
            self._made = None
        self._updates += 1
        self._streams = 0
        self._versions_left = None

    @property
    def updates(self) -> int:
        """Number of calls of :meth:`step`: the t of the schedules."""
        return self._updates

    @property
    def strength(self) -> float:
        """a, before the schedule's factor; may be set between blocks."""
        return self._strength

    @strength.setter
    def strength(self, value: float) -> None:
        self._strength = _checks.nonnegative("strength", value, "Use 0 to switch the noise off.")

    @property
    def amplitude(self) -> float:
        """Strength times the schedule's factor at this step; 0 before ``start_step``."""
        if self._updates < self._start_step or self._strength == 0:
            return 0.0
        past_end = self._total_steps is not None and self._updates >= self._total_steps
        if past_end and self._schedule_name in schedules.BOUNDED:
            raise ValueError(
                f"schedule {self._schedule_name!r} was made for total_steps={self._total_steps} and "
                f"{self._updates} steps have been made. Pass the number of optimizer steps of the whole run."
            )
        factor = _checks.nonnegative(
            f"the factor that schedule {self._schedule_name!r} gives at step {self._updates}",
            self._schedule(self._updates),
            "Let the schedule return the number that multiplies the strength.",
        )
        return self._strength * factor

    # -- looking and saving --------------------------------------------------------------------------------

    @torch.no_grad()
    def summary(self) -> NoiseSummary:
        """Which weights get noise and how much, measured on the next draw; leaves everything as it was."""
        self._refuse_open("summary()")
        self._follow()
        key = NoiseKey(self.seed, self._updates, self._streams)
        amplitude = self.amplitude
        squares: dict[int, tuple[float, float]] = {}
        for group in self._groups:
            thetas = offsets(group, key, amplitude, self._scale, self._distribution)
            for weight, theta in zip(group, thetas, strict=True):
                clean = weight.parameter.detach()
                moved = (clean.to(theta.dtype) + theta).to(clean.dtype).double() - clean.double()
                squares[weight.ordinal] = (
                    float(moved.square().sum()),
                    float(clean.double().square().sum()),
                )
        tensors = tuple(
            TensorNoise(
                name=weight.name,
                shape=tuple(weight.parameter.shape),
                filters=weight.filters(weight.parameter).shape[0],
                left_out=reason,
                relative_noise=_ratio([squares[weight.ordinal]]) if reason is None else 0.0,
            )
            for weight, reason in self._all
        )
        return NoiseSummary(tensors, _ratio(list(squares.values())), amplitude)

    def state_dict(self) -> dict[str, Any]:
        """What is needed to go on with the same noise, bit for bit; plain numbers and strings."""
        self._refuse_open("state_dict()")
        return {
            "updates": self._updates,
            "streams": self._streams,
            "seed": self.seed,
            "strength": self._strength,
            "settings": self._settings(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from a saved state: sets updates, seed and strength.

        Raises:
            ValueError: If the state was saved with other settings than this object was made with, which
                would give other noise.
        """
        self._refuse_open("load_state_dict()")
        expected = self.state_dict().keys()
        if state.keys() != expected:
            raise ValueError(
                f"the state has the keys {sorted(state)}; expected {sorted(expected)}. Pass what state_dict() gave."
            )
        settings = self._settings()
        saved = state["settings"]
        for name in sorted(settings.keys() | saved.keys()):
            if saved.get(name) != settings.get(name):
                raise ValueError(
                    f"the state was saved with {name}={saved.get(name)!r} and this smoother has "
                    f"{name}={settings.get(name)!r}. Build it with the saved settings, or start a new one."
                )
        updates = _checks.whole("updates", state["updates"], at_least=0)
        streams = _checks.whole("streams", state["streams"], at_least=0)
        seed = _checks.whole("seed", state["seed"], at_least=0, below=2**64)
        self.strength = state["strength"]
        self._updates, self._streams, self.seed = updates, streams, seed
        self._versions_left = None

    def _settings(self) -> dict[str, Any]:
        return {
            "scale": self._scale,
            "distribution": self._distribution,
            "schedule": self._schedule_name,
            "schedule_constants": list(self._schedule_constants),
            "total_steps": self._total_steps,
            "start_step": self._start_step,
            "one_dimensional": self._one_dimensional,
            "denoise": self._denoise,
        }

    def __getstate__(self) -> dict[str, Any]:
        # copy.deepcopy and pickle both come here.
        self._refuse_open("copying or saving the smoother")
        return self.__dict__ | {"_snapshot": Snapshot(), "_versions_left": None, "_signature": [], "_made": None}

    def __repr__(self) -> str:
        perturbed = sum(weight.parameter.numel() for group in self._groups for weight in group)
        return (
            f"{type(self).__name__}(strength={self._strength}, scale={self._scale!r}, "
            f"distribution={self._distribution!r}, updates={self._updates}, weights={perturbed})"
        )

    # -- inside --------------------------------------------------------------------------------------------

    def _refuse_open(self, what: str) -> None:
        if self._open is not None:
            raise RuntimeError(
                f"{what} while the weights are perturbed: the block opened at {self._open.place} has not been "
                f"left. Do it after the block; if a generator holds the block open, exhaust or close it."
            )

    def _follow(self) -> None:
        """Select again if parameters were added, removed, frozen, unfrozen, moved or cast."""
        if self._signature != self._look():
            self._select()

    def _look(self) -> list[tuple[object, ...]]:
        if isinstance(self._source, nn.Module):
            parameters = list(self._source.parameters())
        else:
            parameters = [parameter for _, parameter in self._source]
        # _all keeps the parameters alive, so an id is never that of a newer object.
        return [(id(p), p.requires_grad, p.shape, p.dtype, p.device) for p in parameters]

    def _select(self) -> None:
        """Find what is perturbed, in groups of one device and bounded size."""
        found = weights.all_weights(self._source)
        quiet = weights.quiet_ids(self._source) if isinstance(self._source, nn.Module) else set()
        self._all: list[tuple[Weight, str | None]] = [
            (weight, weights.why_left_out(weight, quiet, self._exclude, self._one_dimensional)) for weight in found
        ]
        selected = [weight for weight, reason in self._all if reason is None]
        self._groups = _grouped(selected)
        self._parameters = [weight.parameter for weight in selected]
        self._names = [weight.name for weight in selected]
        self._ids = {id(parameter) for parameter in self._parameters}
        self._versions_left = None
        self._signature = self._look()

    def _versions(self) -> list[int]:
        return [parameter._version for parameter in self._parameters]

    @torch.no_grad()
    def _add_noise(self, key: NoiseKey, amplitude: float) -> None:
        for group in self._groups:
            thetas = offsets(group, key, amplitude, self._scale, self._distribution)
            torch._foreach_add_([weight.parameter for weight in group], thetas)

    def _warn_of_forgotten_step(self) -> None:
        """Weights that changed since the last block mean that an optimizer stepped without ``step()``."""
        versions = self._versions()
        if self._warned or self._strength == 0 or self._versions_left in (None, versions):
            return
        self._versions_left = versions
        if self._denoise and self.amplitude > 0 and not self._snapshot.differs():
            return  # written and put back, as a block of another smoother does
        self._warned = True
        warnings.warn(
            f"the weights have changed since the last perturbed() block and smoother.step() was not called: "
            f"the smoother still counts {self._updates} updates, so its schedule stands still. "
            f"Call smoother.step() after optimizer.step().",
            RuntimeWarning,
            stacklevel=4,
        )


class _Block:
    """One ``with smoother.perturbed():``; made anew for each."""

    def __init__(self, smoother: SmoothOut, stream: int | None, draw: int, antithetic: bool, place: str) -> None:
        self._smoother = smoother
        self._stream = stream
        self._draw = draw
        self._sign = -1 if antithetic else 1
        self.place = place
        self._amplitude = 0.0
        self._hook: RemovableHandle | None = None
        self._versions_inside: list[int] = []

    def __enter__(self) -> Self:
        smoother = self._smoother
        smoother._made = None
        smoother._refuse_open("perturbed()")
        smoother._follow()
        smoother._warn_of_forgotten_step()
        self._amplitude = smoother.amplitude
        stream = smoother._streams if self._stream is None else self._stream
        key = NoiseKey(smoother.seed, smoother._updates, stream, self._draw)
        if self._amplitude > 0 and smoother._denoise:
            smoother._snapshot.take(smoother._parameters)
        try:
            # The hook only looks; it never restores, since a GradScaler may skip the step it waits for.
            self._hook = register_optimizer_step_pre_hook(self._check_optimizer)
            smoother._open = self
            if self._amplitude > 0:
                smoother._add_noise(key, self._sign * self._amplitude)
                self._forget_casts()
            self._versions_inside = smoother._versions()
        except BaseException:
            self._close()
            raise
        if self._stream is None:
            smoother._streams += 1
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        smoother = self._smoother
        if smoother._open is not self:
            raise RuntimeError(f"the perturbed() block opened at {self.place} is not open; leave a block once.")
        problem = None
        try:
            if self._amplitude > 0 and smoother._denoise and kind is None:
                problem = self._written()
        finally:
            self._close()
        smoother._versions_left = smoother._versions()
        if problem is not None:
            raise RuntimeError(problem)

    def _written(self) -> str | None:
        """What is wrong if weights were written or replaced inside the block."""
        smoother = self._smoother
        if smoother._look() != smoother._signature:
            return (
                f"parameters were added, replaced, moved or frozen inside the block opened at {self.place}; what was "
                f"perturbed has been restored, but a new parameter may hold noisy values. Do that after the block."
            )
        versions = zip(smoother._names, self._versions_inside, smoother._versions(), strict=True)
        for name, inside, now in versions:
            if inside != now:
                return (
                    f"{name!r} was written inside the block opened at {self.place}; the weights have been restored, "
                    f"so that write is undone. Change weights after the block."
                )
        return None

    def _close(self) -> None:
        """Restore the weights and end the block; an interrupt on the way makes it begin again."""
        try:
            self._restore()
        except BaseException:
            self._restore()  # the second time has the same effect
            raise
        finally:
            if self._hook is not None:
                self._hook.remove()
            self._smoother._open = None

    def _restore(self) -> None:
        if self._amplitude > 0:
            if self._smoother._denoise:
                self._smoother._snapshot.restore()
            self._forget_casts()

    @staticmethod
    def _forget_casts() -> None:
        # Autocast opened outside the block keeps half-precision copies of weights; they are stale now.
        torch.clear_autocast_cache()

    def _check_optimizer(
        self, optimizer: torch.optim.Optimizer, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> tuple[tuple[Any, ...], dict[str, Any]] | None:
        """Refuse a step inside the block, or one whose closure leaves the block open."""
        held = (p for group in optimizer.param_groups for p in group["params"])
        if not any(id(parameter) in self._smoother._ids for parameter in held):
            return None
        closure: Callable[[], Any] | None = kwargs.get("closure", args[1] if len(args) > 1 else None)
        if closure is None:
            self._refuse_step(optimizer)

        def checked_closure() -> Any:
            loss = closure()
            if self._smoother._open is self:
                self._refuse_step(optimizer)
            return loss

        if "closure" in kwargs:
            return args, kwargs | {"closure": checked_closure}
        return (args[0], checked_closure, *args[2:]), kwargs

    def _refuse_step(self, optimizer: torch.optim.Optimizer) -> NoReturn:
        raise RuntimeError(
            f"{type(optimizer).__name__}.step() inside the perturbed() block opened at {self.place}: it would "
            f"step from the noisy weights, and the restore would undo it. Call it after the block."
        )


class _Options(TypedDict, total=False):
    """The keyword arguments of SmoothOut that AdaSmoothOut passes on."""

    distribution: Distribution
    schedule: ScheduleName | Schedule
    anneal_index: float
    tanh_scale: float
    cosine_gain: float
    total_steps: int | None
    start_step: int
    exclude: Exclude
    one_dimensional: OneDimensional
    denoise: bool
    seed: int


class AdaSmoothOut(SmoothOut):
    r"""SmoothOut with noise in proportion to each filter's norm: ``SmoothOut(..., scale="filter")``.

    .. math:: \theta_f = a \|w_f\| z_f / (\|z_f\| + 10^{-6})

    so the relative noise r_f = ||theta_f|| / ||w_f|| is the strength a for every filter (Wen et al. 2018,
    arXiv 1805.07898, AdaSmoothOut).

    Args:
        model_or_named_parameters, strength, options: As for :class:`SmoothOut`.

    Example:
        >>> import torch
        >>> smoother = AdaSmoothOut(torch.nn.Linear(50, 20, bias=False), strength=0.3)
        >>> round(smoother.summary().relative_noise, 4)
        0.3
    """

    def __init__(
        self,
        model_or_named_parameters: nn.Module | Iterable[tuple[str, nn.Parameter]],
        strength: float,
        **options: Unpack[_Options],
    ) -> None:
        super().__init__(model_or_named_parameters, strength, scale="filter", **options)


def _refuse_data_parallel(model: nn.Module) -> None:
    if any(isinstance(module, nn.DataParallel) for module in model.modules()):
        raise TypeError(
            "the model is in nn.DataParallel, whose replicas are copied anew in each forward; expected a plain "
            "model. Use DistributedDataParallel, one process per device."
        )


def _grouped(selected: list[Weight]) -> list[list[Weight]]:
    """Consecutive weights of one device, up to about GROUP_ELEMENTS elements a group."""
    groups: list[list[Weight]] = []
    elements = 0
    for weight in selected:
        size = weight.parameter.numel()
        same_device = bool(groups) and groups[-1][0].parameter.device == weight.parameter.device
        if not same_device or elements + size > GROUP_ELEMENTS:
            groups.append([])
            elements = 0
        groups[-1].append(weight)
        elements += size
    return groups


def _ratio(squares: list[tuple[float, float]]) -> float:
    """sqrt(sum of moved^2 / sum of clean^2); nan where all weights are zero, 0 for nothing at all."""
    moved = sum(pair[0] for pair in squares)
    clean = sum(pair[1] for pair in squares)
    if clean > 0:
        return float((moved / clean) ** 0.5)
    return float("nan") if squares else 0.0
