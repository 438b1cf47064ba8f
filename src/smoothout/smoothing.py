"""SmoothOut and AdaSmoothOut: noise on the weights for the length of a ``with`` block."""

import contextlib
import dataclasses
import math
import warnings
from collections.abc import Iterable, Iterator
from fractions import Fraction
from typing import Any, Literal, TypedDict, Unpack

import torch
from torch import Tensor, nn

from smoothout import _checks, schedules, shards, split_filters
from smoothout._types import Distribution, OneDimensional, Scale, Schedule, ScheduleName, Sync
from smoothout.auto import AutoStrength, Controller
from smoothout.kernels.choose import fuse
from smoothout.kernels.fused import Fused, apart
from smoothout.noise.draws import NoiseKey
from smoothout.ranks import Ranks, ranks_of
from smoothout.results.noise import NoiseSummary, TensorNoise
from smoothout.scaling import offsets
from smoothout.scope import Block, Scope
from smoothout.weights import Exclude, Weight, exclude_batch_norm

#: Tensors are perturbed in groups of about this many elements, so that few draws are in memory at a time.
#: A larger tensor is a group of its own.
GROUP_ELEMENTS = 1 << 20


class SmoothOut(Scope):
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
        strength: a >= 0, in units of the weights (scale "none") or relative to them; or "auto", or an
            :class:`AutoStrength`: then training finds it, and :meth:`observe` is told every ghost batch's loss.
        scale: "none", "weight" (a |w_i|) or "filter" (a ||w_f||); see :mod:`smoothout.scaling`.
        distribution: "uniform" on (-1, 1) or standard "normal".
        schedule: Name of a factor on the strength, or a function of the number of updates made, which is asked
            anew where that or the strength has changed; see :mod:`smoothout.schedules`.
        anneal_index, tanh_scale, cosine_gain: Constants of those schedules.
        total_steps: Optimizer steps of the whole run; "tanh" and "cosine" need it.
        start_step: Updates before the noise starts. The schedule counts from the run's start, not from it.
        clean_share: Share of the ghost batches of each update that get no noise, rounded up: streams 0, 2, 4, ... for
            0.5. Mixed clean and noisy gradients are the m of m-RWP (Li et al. 2024, arXiv 2404.00357).
        exclude: ``(name, module, parameter) -> bool``, True for what gets no noise; by default every
            BatchNorm. ``model.quiet_parameters`` (names) and frozen parameters are always left out.
        one_dimensional: With scale "filter" every element of a 1-D or 0-D parameter is a filter of its own, so
            its noise is a |w_i| up to the sign; "original" keeps that, "skip" leaves such parameters alone
            at every scale.
        denoise: False leaves the noise in the weights, where it accumulates: the contrast the paper draws.
        seed: Of the noise, 64 bits.
        sync: What several processes of torch.distributed see, each with ghost batches of its own. "independent":
            ghost batch k of all processes together has stream k; process r of P counts its own ones as streams r,
            r + P, r + 2 P, ..., so that the noise does not depend on P. "shared": each counts from 0, so all have the
            same noise at a time, as ``denoise=False`` needs, or their weights would drift apart. Processes that hold
            parts of the same weights (``fully_shard``, tensor parallel: DTensor) always have the same noise at a time,
            that of the whole weight to the bit, and count from 0 together.
        process_group: Of those processes; None for all. Where weights are sharded over some of all processes, those
            that have copies of them, such as ``mesh["dp"].get_group()``.

    Raises:
        ValueError, TypeError: For values out of range, a schedule without its ``total_steps``, a model in
            DataParallel, FullyShardedDataParallel or DeepSpeed's engine, a parameter that cannot be perturbed, or
            processes that would draw other noise for parts of the same weight.

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
        strength: float | Literal["auto"] | AutoStrength,
        *,
        scale: Scale = "none",
        distribution: Distribution = "uniform",
        schedule: ScheduleName | Schedule = "constant",
        anneal_index: float = 0.55,
        tanh_scale: float = 10.0,
        cosine_gain: float = 15.0,
        total_steps: int | None = None,
        start_step: int = 0,
        clean_share: float = 0.0,
        exclude: Exclude = exclude_batch_norm,
        one_dimensional: OneDimensional = "original",
        denoise: bool = True,
        seed: int = 0,
        sync: Sync = "independent",
        process_group: Any = None,
    ) -> None:
        _checks.one_of("scale", scale, Scale)
        _checks.one_of("sync", sync, Sync)
        _checks.one_of("distribution", distribution, Distribution)
        _checks.whole("start_step", start_step, at_least=0)
        if total_steps is not None:
            _checks.whole("total_steps", total_steps, at_least=1)
            if start_step >= total_steps:
                raise ValueError(
                    f"start_step is {start_step} of total_steps {total_steps}, so the noise would never start; "
                    f"expected start_step < total_steps."
                )
        self.seed = _checks.whole("seed", seed, at_least=0, below=2**64)
        self._clean_share = _share(clean_share)
        self._scale: Scale = scale
        self._distribution: Distribution = distribution
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
        self._controller: Controller | None = None
        self._sync: Sync = sync
        self._given_ranks = None if process_group is None else ranks_of(process_group)
        self._strength = 0.0
        self._displaced = False  # whether any block had noise
        self._known = (-1, 0.0, 0.0)  # updates, strength, and the amplitude for them, which every draw asks for
        super().__init__(model_or_named_parameters, exclude=exclude, one_dimensional=one_dimensional, denoise=denoise)
        if isinstance(strength, AutoStrength) or strength == "auto":
            self._check_auto()
            self._controller = Controller(strength if isinstance(strength, AutoStrength) else AutoStrength())
            self.strength = self._starting_strength(self._controller.settings.start)
        else:
            self.strength = strength

    def _check_auto(self) -> None:
        """Raise where a strength that is found cannot go with an option."""
        if self._schedule_name != "constant":
            raise ValueError(
                f"strength is 'auto' and schedule {self._schedule_name!r}, which would multiply away what is found. "
                f"Leave the schedule out, or give a number."
            )
        if not self._denoise:
            raise ValueError(
                "strength is 'auto' and denoise False, with which no ghost batch is clean. Leave denoise out, or give "
                "a number."
            )

    # -- the block -----------------------------------------------------------------------------------------

    def perturbed(self, stream: int | None = None, draw: int = 0, *, antithetic: bool = False) -> Block:
        """A ``with`` block inside which the weights carry noise; leaving it restores them bit for bit.

        For many ghost batches in one block, each with noise of its own, see :meth:`smoothout.scope.Block.each`.

        Args:
            stream: Index of the ghost batch in the whole batch, that of all processes together; counted since the
                last :meth:`step` if not given, see ``sync``. Equal (seed, step, stream, draw) give equal noise.
            draw: Tells copies of the same ghost batch apart.
            antithetic: Subtract the noise instead of adding it. The mean over both signs of a draw has no term linear
                in the noise.

        Raises:
            RuntimeError: If a block is open already, or if the weights were written inside it.
            ValueError: If the run is past ``total_steps`` of a schedule that needs it, a schedule returns no finite
                number >= 0, or weights that are never restored would get another noise in every process.

        ``optimizer.step()`` and :meth:`step` belong after the block, ``loss.backward()`` inside it: a
        backward pass after the block raises, since the weights that autograd saved have changed. (Within
        activation checkpointing nothing is saved and a late backward goes unnoticed: it recomputes the forward
        pass with the weights as they are then.) Modules of ``fully_shard`` give up what they have gathered where a
        block begins, at each new draw and where it ends, so that the next forward gathers what the shards hold then.
        All processes that share weights enter the same blocks: with filters that are split they talk in each draw.
        """
        if not self._denoise and self._open is None:
            self._follow()  # the weights may have been sharded since
        if not self._denoise and self._counted()[1] > 1:
            raise ValueError(
                f"denoise is False and sync {self._sync!r} in {self._ranks.size} processes: each would keep noise of "
                f"its own, and their weights would drift apart. Give sync='shared', or leave denoise out."
            )
        return self._block(stream, draw, antithetic)

    def observe(self, loss: Tensor | float) -> None:
        """Tell the mean loss of the ghost batch of the last block; ``strength="auto"`` needs it, others ignore it.

        It is the mean over the ghost batch's samples, before it is weighted by the ghost batch's share. A tensor on a
        device is not waited for.
        """
        if self._controller is not None:
            self._controller.observe(loss, clean=self._clean(self._last_stream))

    @property
    def _ranks(self) -> Ranks:
        """The processes that have other ghost batches; looked up anew, since torch.distributed may start late."""
        return ranks_of() if self._given_ranks is None else self._given_ranks

    def _counted(self) -> tuple[int, int]:
        if self._sync == "shared" or self._together:
            return 0, 1
        ranks = self._ranks
        return ranks.rank, ranks.size

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
        if self._known[:2] == (self._updates, self._strength):
            return self._known[2]
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
        self._known = self._updates, self._strength, self._strength * factor
        return self._known[2]

    # -- looking and saving --------------------------------------------------------------------------------

    @torch.no_grad()
    def summary(self) -> NoiseSummary:
        """Which weights get noise and how much, measured on the next draw; leaves everything as it was."""
        self._refuse_open("summary()")
        self._follow()
        first, step = self._counted()
        key = NoiseKey(self.seed, self._updates, first + step * self._streams)
        amplitude = self.amplitude
        squares = self._squares(key, amplitude)
        tensors = tuple(
            TensorNoise(
                name=weight.name,
                shape=tuple(weight.parameter.shape),
                filters=weight.filter_count,
                left_out=reason,
                relative_noise=_ratio([squares[weight.ordinal]]) if reason is None else 0.0,
            )
            for weight, reason in self._all
        )
        return NoiseSummary(tensors, _ratio(list(squares.values())), amplitude)

    def _squares(self, key: NoiseKey, amplitude: float) -> dict[int, tuple[float, float]]:
        """Of each weight, by ordinal, the squared length of the noise, as it is realised, and of the weight."""
        weights: list[Weight] = []
        found: list[Tensor] = []
        for group, thetas in self._offsets(self._groups, key, amplitude):
            for weight, theta in zip(group, thetas, strict=True):
                clean = weight.local.detach()
                moved = (clean.to(theta.dtype) + theta).to(clean.dtype).double() - clean.double()
                weights.append(weight)
                found.append(torch.stack([moved.square().sum(), clean.double().square().sum()]))
        summed = shards.add_up(found, [shards.lines(weight.parameter) for weight in weights])
        pairs = [each.tolist() for each in summed]
        return {weight.ordinal: (moved, clean) for weight, (moved, clean) in zip(weights, pairs, strict=True)}

    def _offsets(
        self, groups: list[list[Weight]], key: NoiseKey, amplitude: float
    ) -> Iterator[tuple[list[Weight], list[Tensor]]]:
        """The offsets of each group in turn."""
        split: dict[int, Tensor] = {}
        if self._scale == "filter" and self._sharded:
            split = split_filters.factors(groups, key, amplitude, self._distribution)
        for group in groups:
            yield group, offsets(group, key, amplitude, self._scale, self._distribution, split)

    def state_dict(self) -> dict[str, Any]:
        """What is needed to go on with the same noise, bit for bit; plain numbers and strings."""
        self._refuse_open("state_dict()")
        state = {
            "updates": self._updates,
            "streams": self._streams,
            "seed": self.seed,
            "strength": self._strength,
            "settings": self._settings(),
        }
        return state if self._controller is None else state | {"auto": self._controller.state_dict()}

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
        if self._controller is not None:
            self._controller.load_state_dict(state["auto"])
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
        } | self._settings_that_came_later()

    def _settings_that_came_later(self) -> dict[str, Any]:
        """Only where they are used, so that older states stay what they were."""
        later: dict[str, Any] = {} if self._clean_share == 0 else {"clean_share": str(self._clean_share)}
        later |= {} if self._sync == "independent" else {"sync": self._sync}
        return later if self._controller is None else later | {"auto": dataclasses.asdict(self._controller.settings)}

    def __repr__(self) -> str:
        perturbed = sum(weight.parameter.numel() for group in self._groups for weight in group)
        return (
            f"{type(self).__name__}(strength={self._strength}, scale={self._scale!r}, "
            f"distribution={self._distribution!r}, updates={self._updates}, weights={perturbed})"
        )

    # -- inside --------------------------------------------------------------------------------------------

    def _selected(self) -> None:
        self._together = self._share_weights()
        self._groups = _grouped(self._weights)
        self._fused: list[Fused] = []
        slow = self._weights
        if self._denoise:
            self._fused, slow = fuse(self._weights, self._scale, self._distribution)
        self._slow = _grouped(slow)
        self._copied = [weight.local for weight in slow]

    def _share_weights(self) -> bool:
        """Whether all processes hold parts of the same weights, and so must draw the same noise at a time.

        Raises:
            ValueError: If processes that do would count other streams than each other.
        """
        if not self._sharded or self._sync == "shared":
            return False
        if self._given_ranks is None:
            largest = max(shards.mesh_size(weight.parameter) for weight in self._sharded)
            everyone = ranks_of().size
            if largest < everyone:
                raise ValueError(
                    f"weights are sharded over {largest} of {everyone} processes, and process_group is None; "
                    f"expected the processes that have other ghost batches, and a copy of the weights each. "
                    f'Give process_group=mesh["dp"].get_group(), with the name of that dimension of your mesh.'
                )
            return True
        for weight in self._sharded:
            others = shards.holders(weight.parameter).intersection(self._given_ranks.members())
            if len(others) > 1:
                raise ValueError(
                    f"processes {sorted(others)} of process_group hold parts of the same {weight.name!r} and would "
                    f"draw other noise than each other; expected processes that each have a copy. Leave process_group "
                    f"out, or give that of another dimension of the mesh."
                )
        return False

    def _follow(self) -> None:
        super()._follow()
        moved = [kernel for kernel in self._fused if kernel.shifted()]  # all else is in what _look() sees
        if not moved:
            return
        if all(kernel.fits() for kernel in moved) and apart(self._locals):
            for kernel in moved:
                kernel.relocate()
        else:
            self._select()

    def _on(self) -> bool:
        return self._strength > 0

    def _clean(self, stream: int) -> bool:
        """Of every 1 / clean_share streams the first, so of any number at least the share; with "auto" the first."""
        if self._controller is not None and stream == 0:
            return True
        if not self._clean_share:
            return False
        return math.ceil((stream + 1) * self._clean_share) > math.ceil(stream * self._clean_share)

    def _noisy(self) -> bool:
        return self.amplitude > 0

    def _adapt(self) -> None:
        alone = self._together or self._ranks.size == 1  # else the noise may be another process's
        if alone and self._clean_share and self._noisy() and self._blocks and not self._displaced:
            self._displaced = True  # said once
            warnings.warn(
                f"clean_share is {float(self._clean_share):g} and this update had one ghost batch, which stays clean: "
                f"there was no noise. Split each batch into two or more ghost batches, a perturbed() block for each.",
                RuntimeWarning,
                stacklevel=3,
            )
        if self._controller is None:
            return
        if self._noisy():
            self._controller.gather(*self._observers())
            self._strength = self._controller.update(self._strength)
        else:  # before start_step there is nothing to learn from
            self._controller.forget()

    def _observers(self) -> tuple[list[Ranks], torch.device | None]:
        """The processes that find one strength, and the device on which they talk."""
        if not self._sharded:
            return [self._ranks], self._parameters[0].device if self._parameters else None
        lines = shards.mesh_lines([weight.parameter for weight in self._sharded])
        where = torch.device(lines[0].device)
        return [self._ranks, *(ranks_of(line.group) for line in lines if not self._together)], where

    def _displace(self, stream: int, draw: int, sign: int) -> None:
        self._displaced = True
        self._add_noise(NoiseKey(self.seed, self._updates, stream, draw), sign * self.amplitude)

    def _add_noise(self, key: NoiseKey, amplitude: float) -> None:
        for kernel in self._fused:
            kernel.perturb(key, amplitude)
        if self._slow:
            self._add_slowly(key, amplitude)

    @torch.no_grad()
    def _add_slowly(self, key: NoiseKey, amplitude: float) -> None:
        for group, thetas in self._offsets(self._slow, key, amplitude):
            torch._foreach_add_([weight.local for weight in group], thetas)

    def _in_place(self) -> bool:
        # Kernels write to addresses, whose memory they keep alive; torch's copies look for themselves.
        return not any(kernel.shifted() for kernel in self._fused)

    def _take(self) -> None:
        for kernel in self._fused:
            kernel.forget()
        super()._take()

    def _put_back(self, same: bool) -> None:
        with contextlib.ExitStack() as each:  # one that cannot be restored must not stop the others
            for kernel in self._fused:
                each.callback(kernel.restore, same)
            super()._put_back(same)

    def _differs(self) -> bool:
        return super()._differs() or any(kernel.differs() for kernel in self._fused)

    def __getstate__(self) -> dict[str, Any]:
        return super().__getstate__() | {"_fused": []}  # made again by the next block

    @torch.no_grad()
    def _starting_strength(self, relative_noise: float) -> float:
        """The strength whose noise has, in expectation, this size relative to the weights."""
        if self._scale == "filter":
            return relative_noise
        spread = 1 / math.sqrt(3) if self._distribution == "uniform" else 1.0
        if self._scale == "weight":
            return relative_noise / spread
        own = [values.detach().double().square().sum() for values in self._locals]
        over = [shards.lines(parameter) for parameter in self._parameters]
        squares = sum(float(each) for each in shards.add_up(own, over))
        count = sum(parameter.numel() for parameter in self._parameters)
        if squares == 0:
            raise ValueError(
                "strength is 'auto' and every weight that gets noise is 0, so there is no size to start from. "
                "Initialise the weights first, or give a number."
            )
        return relative_noise * math.sqrt(squares / count) / spread


def _share(value: float) -> Fraction:
    """A share as a fraction, so that streams are counted without rounding."""
    _checks.nonnegative("clean_share", value, "Use 0 for noise on every ghost batch.")
    if value >= 1:
        raise ValueError(f"clean_share is {value}; expected a share below 1, such as 0.5. For no noise use strength 0.")
    return Fraction(value).limit_denominator(1000)


class _Options(TypedDict, total=False):
    """The keyword arguments of SmoothOut that AdaSmoothOut passes on."""

    distribution: Distribution
    schedule: ScheduleName | Schedule
    anneal_index: float
    tanh_scale: float
    cosine_gain: float
    total_steps: int | None
    start_step: int
    clean_share: float
    exclude: Exclude
    one_dimensional: OneDimensional
    denoise: bool
    seed: int
    sync: Sync
    process_group: Any


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
        strength: float | Literal["auto"] | AutoStrength,
        **options: Unpack[_Options],
    ) -> None:
        super().__init__(model_or_named_parameters, strength, scale="filter", **options)


def _grouped(selected: list[Weight]) -> list[list[Weight]]:
    """Consecutive weights of one device, up to about GROUP_ELEMENTS elements a group."""
    groups: list[list[Weight]] = []
    elements = 0
    for weight in selected:
        size = weight.local.numel()
        same_device = bool(groups) and groups[-1][0].local.device == weight.local.device
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
