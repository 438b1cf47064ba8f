"""A ``with`` block inside which weights are displaced, and after which they are what they were, bit for bit."""

import operator
import sys
import warnings
from collections.abc import Callable, Iterable, Iterator
from types import TracebackType
from typing import Any, NoReturn, Self, TypeVar

import torch
from torch import Tensor, nn
from torch.optim.optimizer import register_optimizer_step_pre_hook
from torch.utils.hooks import RemovableHandle

from smoothout import _checks, gathering, shards, weights
from smoothout._types import OneDimensional
from smoothout.weights import Exclude, Snapshot, Weight

Item = TypeVar("Item")
_version, _requires_grad = operator.attrgetter("_version"), operator.attrgetter("requires_grad")


class Scope:
    """Selects a model's weights, and displaces them for the length of a block.

    A subclass says in :meth:`_noisy` whether blocks displace anything, and does so in :meth:`_displace`.

    Args:
        model_or_named_parameters: A model, or pairs (name, parameter).
        exclude: Says which parameters are left out.
        one_dimensional: "skip" leaves out every 1-D and 0-D parameter.
        denoise: False leaves the weights displaced.
    """

    def __init__(
        self,
        model_or_named_parameters: nn.Module | Iterable[tuple[str, nn.Parameter]],
        *,
        exclude: Exclude,
        one_dimensional: OneDimensional = "original",
        denoise: bool = True,
    ) -> None:
        _checks.one_of("one_dimensional", one_dimensional, OneDimensional)
        self._one_dimensional: OneDimensional = one_dimensional
        if not callable(exclude):
            raise TypeError(
                f"exclude is a {type(exclude).__name__}; expected a function (name, module, parameter) -> bool. "
                f"For names: exclude=lambda name, module, parameter: name in names."
            )
        self._exclude = exclude
        self._denoise = denoise
        self._source: nn.Module | list[tuple[str, nn.Parameter]]
        if isinstance(model_or_named_parameters, nn.Module):
            gathering.refuse_wrappers(model_or_named_parameters)
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
        self._last_stream = 0
        self._blocks = 0  # entered since the last step()
        self._open: Block | None = None
        self._made: Block | None = None  # the last one, until it is entered
        self._snapshot = Snapshot()
        self._versions_left: list[int] | None = None
        self._warned = False
        self._signature: tuple[object, ...] = ()
        self._select()

    # -- what a subclass says ------------------------------------------------------------------------------

    def _noisy(self) -> bool:
        """Whether blocks displace the weights now."""
        raise NotImplementedError

    def _counted(self) -> tuple[int, int]:
        """The first stream that this process counts, and the step from one to the next."""
        return 0, 1

    def _displace(self, stream: int, draw: int, sign: int) -> None:
        """Add the displacement, times the sign, to the weights in place; copy those that are not in ``_copied``."""
        raise NotImplementedError

    def _displace_anew(self, stream: int, draw: int, sign: int) -> None:
        """Put another displacement of the copied weights in the place of the one that the weights carry."""
        self._snapshot.restore()
        self._displace(stream, draw, sign)

    def _in_place(self) -> bool:
        """Whether weights lie where they did when they were copied; asked before :meth:`_displace_anew`."""
        return True

    def _take(self) -> None:
        """Copy the weights, but for those that :meth:`_displace` copies."""
        self._snapshot.take(self._copied)

    def _put_back(self, _same: bool) -> None:
        """Undo the displacement, bit for bit; may be called again. ``same`` says that :meth:`_look` saw no change."""
        self._snapshot.restore()

    def _differs(self) -> bool:
        """Whether the weights are no longer what was copied last."""
        return self._snapshot.differs()

    def _on(self) -> bool:
        """Whether any block ever displaces the weights."""
        return True

    def _clean(self, _stream: int) -> bool:
        """Whether blocks of this stream never displace the weights."""
        return False

    def _adapt(self) -> None:
        """Learn from an update, before it is counted."""

    # -- the block -----------------------------------------------------------------------------------------

    def _block(self, stream: int | None, draw: int, antithetic: bool) -> "Block":
        """A block made for the caller of the caller."""
        if stream is not None:
            stream = _checks.whole("stream", stream, at_least=0, below=2**32)
        draw = _checks.whole("draw", draw, at_least=0, below=2**32)
        caller = sys._getframe(2)
        self._made = Block(self, stream, draw, antithetic, f"{caller.f_code.co_filename}:{caller.f_lineno}")
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
        self._adapt()
        self._updates += 1
        self._streams = self._blocks = 0
        self._versions_left = None

    @property
    def updates(self) -> int:
        """Number of calls of :meth:`step`: the t of the schedules."""
        return self._updates

    def __getstate__(self) -> dict[str, Any]:
        # copy.deepcopy and pickle both come here.
        self._refuse_open("copying or saving the smoother")
        return self.__dict__ | {"_snapshot": Snapshot(), "_versions_left": None, "_signature": (), "_made": None}

    # -- inside --------------------------------------------------------------------------------------------

    def _refuse_open(self, what: str) -> None:
        if self._open is not None:
            raise RuntimeError(
                f"{what} while the weights are perturbed: the block opened at {self._open.place} has not been "
                f"left. Do it after the block; if a generator holds the block open, exhaust or close it."
            )

    def _reshard(self) -> None:
        """Let modules that gather their weights give up what they gathered, and have their shards registered."""
        if self._gathering:
            gathering.reshard(self._gathering)

    def _tell_autograd(self) -> None:
        """DTensors, and what was gathered from them, have versions of their own, which no write to a shard raises."""
        if self._sharded:
            written = [weight.parameter for weight in self._sharded]
            torch.autograd.graph.increment_version([*written, *gathering.gathered(self._gathering)])

    def _follow(self) -> None:
        """Select again if parameters were added, removed, frozen, unfrozen, moved or cast."""
        self._reshard()
        if self._signature != self._look():
            self._select()

    def _look(self) -> tuple[object, ...]:
        """What must stay as it is, or all is selected again. What is looked at stays alive, so that ids are unique."""
        layouts = [
            (p.shape, p.stride() if p.layout == torch.strided else None, p.dtype, p.device, p.is_neg())
            for p in self._locals
        ]
        held = [id(shards.local(weight.parameter)) for weight in self._sharded]
        return weights.tree(self._modules), list(map(_requires_grad, self._found)), layouts, held

    def _select(self) -> None:
        """Find what is perturbed."""
        self._signature = ()
        self._modules = list(self._source.modules()) if isinstance(self._source, nn.Module) else []
        self._gathering = gathering.gathering(self._modules)
        self._reshard()
        found = weights.all_weights(self._source)
        self._found = [weight.parameter for weight in found]
        for weight in found:
            self._check_kind(weight)
        quiet = weights.quiet_ids(self._source) if isinstance(self._source, nn.Module) else set()
        self._all: list[tuple[Weight, str | None]] = [
            (weight, weights.why_left_out(weight, quiet, self._exclude, self._one_dimensional)) for weight in found
        ]
        self._weights = [weight for weight, reason in self._all if reason is None]
        self._parameters = [weight.parameter for weight in self._weights]
        self._locals = [weight.local for weight in self._weights]  # what is written to
        self._sharded = [weight for weight in self._weights if weight.part is not None]
        self._names = [weight.name for weight in self._weights]
        self._ids = {id(parameter) for parameter in self._parameters}
        self._copied: list[Tensor] = self._locals
        self._versions_left = None
        self._selected()
        self._signature = self._look()  # last: an interrupt before it leaves all to be selected again

    def _check_kind(self, weight: Weight) -> None:
        gathering.refuse_parameter(weight.name, weight.parameter)
        if not isinstance(self._source, nn.Module) and shards.is_shard(weight.parameter):
            raise TypeError(
                f"parameter {weight.name!r} is a DTensor in pairs (name, parameter); expected plain ones there. Pass "
                f"the model itself: modules of fully_shard must gather anew whenever their shards change."
            )

    def _selected(self) -> None:
        """Prepare what depends on the selection."""

    def _versions(self) -> list[int]:
        if not self._sharded:
            return list(map(_version, self._locals))
        # A write to a DTensor whose part here is empty raises that one's version alone.
        pairs = zip(self._locals, self._parameters, strict=True)
        return [values._version + (p._version if values is not p else 0) for values, p in pairs]

    def _warn_of_forgotten_step(self) -> None:
        """Weights that changed since the last block mean that an optimizer stepped without ``step()``."""
        versions = self._versions()
        if self._warned or not self._on() or self._versions_left in (None, versions):
            return
        self._versions_left = versions
        if self._denoise and self._noisy() and not self._differs():
            return  # written and put back, as a block of another smoother does
        self._warned = True
        warnings.warn(
            f"the weights have changed since the last perturbed() block and smoother.step() was not called: "
            f"the smoother still counts {self._updates} updates, so its schedule stands still. "
            f"Call smoother.step() after optimizer.step().",
            RuntimeWarning,
            stacklevel=4,
        )


class Block:
    """One ``with smoother.perturbed():``; made anew for each.

    The weights are copied where the block first displaces them. That copy is *held*: :meth:`each` displaces them anew
    from it, and leaving the block writes it back.
    """

    def __init__(self, smoother: Scope, stream: int | None, draw: int, antithetic: bool, place: str) -> None:
        self._smoother = smoother
        self._stream = stream
        self._draw = draw
        self._sign = -1 if antithetic else 1
        self.place = place
        self._held = False  # whether the weights must be put back
        self._moved = False  # whether the block has displaced them
        self._shown = False  # whether an item of each() has had the present draw
        self._first, self._step = 0, 1  # stream that is counted first, and the step to the next
        self._hook: RemovableHandle | None = None
        self._versions_inside: list[int] = []

    def __enter__(self) -> Self:
        smoother = self._smoother
        smoother._made = None
        smoother._refuse_open("perturbed()")
        smoother._follow()
        smoother._warn_of_forgotten_step()
        self._first, self._step = smoother._counted()
        try:
            # The hook only looks; it never restores, since a GradScaler may skip the step it waits for.
            self._hook = register_optimizer_step_pre_hook(self._check_optimizer)
            smoother._open = self
            self._draw_stream(self._next_stream(), self._draw)
            smoother._streams += self._stream is None
            return self  # in here: an interrupt after the last line would leave the noise
        except BaseException:
            self._close()
            raise

    def each(self, items: Iterable[Item], *, copies: int = 1) -> Iterator[Item]:
        r"""Give every item noise of its own, drawn from one copy of the weights.

        .. math:: w + \theta_s,\quad w + \theta_{s+1},\quad w + \theta_{s+2},\quad \ldots

        The first item sees the draw that the block was entered with, stream s, each further one that of the next
        stream (of P processes s + P, s + 2 P, ..., see :class:`SmoothOut`): bit for bit what blocks of their own would
        show them, :meth:`SmoothOut.observe` and streams that stay clean included. The weights are copied once and
        restored once for all items, where a block for each copies and restores for each. Used twice in a block, it goes
        on with the next stream.

        Args:
            items: Such as the ghost batches of a batch. An item is fetched before its noise is drawn, while the weights
                carry the noise of the item before it.
            copies: Yield each item so often, with a draw of its own each time.

        Yields:
            The items.

        Raises:
            RuntimeError: If the block is not open, or weights were written while the item before had its noise; that
                write is undone, as all noise is, when the block is left.

        Example:
            >>> from smoothout import SmoothOut, ghost_batches
            >>> model = nn.Linear(3, 1)
            >>> smoother = SmoothOut(model, strength=0.1)
            >>> before, seen = model.weight.detach().clone(), []
            >>> with smoother.perturbed() as noise:
            ...     for x in noise.each(ghost_batches(torch.ones(8, 3), size=4)):
            ...         model(x).mean().backward()
            ...         seen.append(model.weight.detach().clone())
            >>> torch.equal(seen[0], seen[1]), torch.equal(model.weight, before)
            (False, True)
            >>> smoother.step()
        """
        copies = _checks.whole("copies", copies, at_least=1, below=2**32 - self._draw + 1)
        self._refuse_left()
        return self._each(items, copies)

    def _each(self, items: Iterable[Item], copies: int) -> Iterator[Item]:
        stream = self._smoother._last_stream
        for item in items:
            for copy in range(copies):
                self._refuse_left()
                if self._shown:
                    if copy == 0:
                        stream = self._next_stream()
                    self._advance(stream, self._draw + copy)
                    self._smoother._streams += copy == 0 and self._stream is None
                self._shown = True
                yield item

    def _next_stream(self) -> int:
        """The one that is counted, or that follows the one that was given."""
        if self._stream is None:
            return self._first + self._step * self._smoother._streams
        if not self._shown:
            return self._stream
        return _checks.whole("stream", self._smoother._last_stream + self._step, at_least=0, below=2**32)

    def _refuse_left(self) -> None:
        if self._smoother._open is not self:
            raise RuntimeError(
                f"each() of the perturbed() block made at {self.place}, which is not open; expected to be inside it. "
                f"Write `with smoother.perturbed() as noise:` around `for item in noise.each(items):`."
            )

    def _draw_stream(self, stream: int, draw: int) -> None:
        """Let the weights carry the noise of a stream; where nothing is held, they are clean (or never denoised)."""
        smoother = self._smoother
        smoother._last_stream = stream
        smoother._blocks += 1
        if smoother._noisy() and not smoother._clean(stream):
            if smoother._denoise:
                smoother._take()
                self._held = True
            self._moved = True
            smoother._displace(stream, draw, self._sign)
            self._announce()
        self._versions_inside = smoother._versions()

    def _advance(self, stream: int, draw: int) -> None:
        """Go on to another draw: in the place of the present one, or, where that cannot be, as another block would."""
        smoother = self._smoother
        smoother._reshard()
        noisy = smoother._noisy() and not smoother._clean(stream)
        if self._held and noisy and smoother._in_place():
            self._refuse_written(True)
            smoother._last_stream = stream
            smoother._blocks += 1
            smoother._displace_anew(stream, draw, self._sign)
            self._announce()
            self._versions_inside = smoother._versions()
            return
        if self._held:
            same = smoother._look() == smoother._signature
            self._refuse_written(same)
            self._restore(same)
            self._held = False
        if noisy:
            smoother._follow()
        self._draw_stream(stream, draw)

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        smoother = self._smoother
        if smoother._open is not self:
            raise RuntimeError(f"the perturbed() block opened at {self.place} is not open; leave a block once.")
        problem, same = None, False
        try:
            smoother._reshard()
            if self._held:
                same = smoother._look() == smoother._signature
                problem = self._written(same) if kind is None else None
        finally:
            self._close(same)
        if not smoother._clean(smoother._last_stream):
            smoother._versions_left = smoother._versions()
        if problem is not None:
            raise RuntimeError(problem)

    def _refuse_written(self, same: bool) -> None:
        problem = self._written(same)
        if problem is not None:
            raise RuntimeError(problem)

    def _written(self, same: bool) -> str | None:
        """What is wrong if weights were written or replaced inside the block."""
        smoother = self._smoother
        if not same:
            return (
                f"parameters were added, replaced, moved or frozen inside the block opened at {self.place}; what was "
                f"perturbed has been restored, but a new parameter may hold noisy values. Do that after the block."
            )
        now = smoother._versions()
        if now == self._versions_inside:
            return None
        pairs = zip(smoother._names, self._versions_inside, now, strict=True)
        name = next(name for name, inside, found in pairs if inside != found)
        return (
            f"{name!r} was written inside the block opened at {self.place}; the weights have been restored, so that "
            f"write is undone. Change weights after the block."
        )

    def _close(self, same: bool = False) -> None:
        """Restore the weights and end the block; an interrupt on the way makes it begin again."""
        try:
            self._restore(same)
        except BaseException:
            self._restore(same)  # the second time has the same effect
            raise
        finally:
            if self._hook is not None:
                self._hook.remove()
            self._smoother._open = None

    def _restore(self, same: bool) -> None:
        if self._held:
            self._smoother._put_back(same)
        if self._moved:
            self._announce()

    def _announce(self) -> None:
        """Tell all that keep something of the weights that these have changed."""
        self._forget_casts()
        self._smoother._tell_autograd()

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
