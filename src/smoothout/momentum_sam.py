"""Momentum-SAM: gradients at weights displaced along the optimizer's momentum, at the price of one pass."""

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn

from smoothout import _checks
from smoothout.scope import Block, Scope
from smoothout.weights import Exclude, exclude_nothing

_BUFFERS = ("momentum_buffer", "exp_avg")
_TINY = 1e-12  # keeps the division finite; the value of the published program


class MomentumSAM(Scope):
    r"""Sharpness-aware minimisation along the momentum (Becker et al. 2024, arXiv 2401.12033, section 2.4).

    .. math:: \tilde w = w - \rho \, v / \|v\|

    with v the optimizer's running mean of gradients: SGD's ``momentum_buffer``, or Adam's ``exp_avg``. Inside
    ``with sam.perturbed():`` the weights are w~; leaving it restores w bit for bit, and the optimizer steps from there.
    The sign is the published one: the last step overshot along -v, so that the loss of the next batch rises further on.
    A negative rho displaces along +v, which SAM's wording would suggest. Before the first step, and for
    weights without a buffer, nothing moves. One norm for all weights, as in the paper.

    Args:
        model_or_named_parameters: A model, or pairs (name, parameter).
        optimizer: The one that trains them, with momentum.
        rho: Length of the displacement, in units of the weights; 0 is off.
        exclude: As for :class:`smoothout.SmoothOut`; by default nothing is left out.

    Raises:
        TypeError, ValueError: If the optimizer keeps no momentum or trains none of the weights, or rho is no finite
            number.

    Example:
        >>> model = nn.Linear(2, 1)
        >>> optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
        >>> sam = MomentumSAM(model, optimizer, rho=0.1)
        >>> for _ in range(2):
        ...     with sam.perturbed():
        ...         model(torch.ones(3, 2)).sum().backward()
        ...     optimizer.step(); optimizer.zero_grad(); sam.step()
    """

    def __init__(
        self,
        model_or_named_parameters: nn.Module | Iterable[tuple[str, nn.Parameter]],
        optimizer: torch.optim.Optimizer,
        rho: float,
        *,
        exclude: Exclude = exclude_nothing,
    ) -> None:
        self.rho = (
            -_checks.nonnegative("rho", -rho, "") if rho < 0 else _checks.nonnegative("rho", rho, "Use 0 for off.")
        )
        self._displaced_along: tuple[object, ...] = ()
        super().__init__(model_or_named_parameters, exclude=exclude)
        self.optimizer = optimizer

    @property
    def optimizer(self) -> torch.optim.Optimizer:
        """Whose momentum is followed; may be replaced between blocks."""
        return self._optimizer

    @optimizer.setter
    def optimizer(self, optimizer: torch.optim.Optimizer) -> None:
        if not all(map(_moving, optimizer.param_groups)):
            raise ValueError(
                f"{type(optimizer).__name__} keeps no momentum, which Momentum-SAM follows; expected "
                f"SGD with momentum, Adam or the like. Give momentum=0.9."
            )
        trained = {id(parameter) for group in optimizer.param_groups for parameter in group["params"]}
        if self._ids and not self._ids & trained:
            raise ValueError(
                f"{type(optimizer).__name__} trains none of the {len(self._ids)} tensors that are to be displaced, so "
                f"that it has no momentum of theirs. Pass the optimizer of this model."
            )
        self._optimizer = optimizer

    def perturbed(self, stream: int | None = None, draw: int = 0) -> Block:
        """A ``with`` block inside which the weights are displaced; equal for all ghost batches of an update.

        Its :meth:`smoothout.scope.Block.each` leaves the weights where they are.

        Raises:
            RuntimeError: If a block is open already, or if the weights were written inside it.
        """
        return self._block(stream, draw, antithetic=False)

    def state_dict(self) -> dict[str, Any]:
        """The number of updates; the direction is in the optimizer's state."""
        self._refuse_open("state_dict()")
        return {"updates": self._updates, "rho": self.rho}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from a saved state."""
        self._refuse_open("load_state_dict()")
        self._updates, self.rho = int(state["updates"]), float(state["rho"])

    def _selected(self) -> None:
        if self._sharded:
            raise TypeError(
                f"parameter {self._sharded[0].name!r} is a DTensor, of which this process holds a part; expected plain "
                f"weights, since the displacement has one norm over all. Use SmoothOut, or DistributedDataParallel."
            )

    def _on(self) -> bool:
        return self.rho != 0

    def _noisy(self) -> bool:
        return self.rho != 0 and any(buffer is not None for buffer in self._buffers())

    def _buffers(self) -> list[Tensor | None]:
        """The running mean of each selected parameter's gradients; None where momentum is off or not begun.

        Raises:
            RuntimeError: If the optimizer has stepped and keeps no such mean of any of them.
        """
        still = {id(p) for group in self._optimizer.param_groups if not _moving(group) for p in group["params"]}
        states = [self._optimizer.state.get(p, {}) if id(p) not in still else {} for p in self._parameters]
        found = [next((state[name] for name in _BUFFERS if state.get(name) is not None), None) for state in states]
        if any(states) and all(buffer is None for buffer in found):
            raise RuntimeError(
                f"{type(self._optimizer).__name__} keeps {sorted(set().union(*states))} of each weight; expected "
                f"{' or '.join(_BUFFERS)}, which Momentum-SAM follows. Use SGD with momentum, Adam or the like."
            )
        return found

    def _displace_anew(self, stream: int, draw: int, sign: int) -> None:
        if self._along() != self._displaced_along:  # else it is the displacement that the weights carry
            super()._displace_anew(stream, draw, sign)

    def _along(self) -> tuple[object, ...]:
        """What a displacement follows from."""
        return self.rho, [(id(buffer), buffer._version) for buffer in self._buffers() if buffer is not None]

    @torch.no_grad()
    def _displace(self, _stream: int, _draw: int, sign: int) -> None:
        self._displaced_along = self._along()
        pairs = [(p, b) for p, b in zip(self._parameters, self._buffers(), strict=True) if b is not None]
        buffers = [buffer for _, buffer in pairs]
        norm = torch.stack([each.float() for each in torch._foreach_norm(buffers)]).norm()
        # A product by a tensor: nothing waits for the device.
        moves = torch._foreach_mul(buffers, -sign * self.rho / (norm + _TINY))
        torch._foreach_add_([parameter for parameter, _ in pairs], moves)


def _moving(group: dict[str, Any]) -> bool:
    """Whether a group's options give it momentum."""
    return bool(group.get("momentum", 0) or group.get("betas", (0,))[0])
