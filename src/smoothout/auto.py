"""A strength that training finds by itself: from what the noise costs in loss."""

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from smoothout import _checks

if TYPE_CHECKING:  # the settings of a run need the first class alone, and a command's --help does not wait for torch
    from collections.abc import Sequence

    from torch import Tensor, device

    from smoothout.ranks import Ranks

Measure = Literal["gap", "ratio"]
_FAST = 10.0  # times the speed, at first


@dataclass(frozen=True)
class AutoStrength:
    r"""How ``SmoothOut(strength="auto")`` finds its strength; pass one of these in place of "auto" to change it.

    In each update the first ghost batch stays clean, so the mean loss of the noisy ones minus its loss is what the
    noise costs. After the update the strength is multiplied by 1 + ``speed`` if that is below the target, else divided
    by it. At first the change is ten times as fast; each turn from rising to falling or back halves that, down to
    ``speed``: one ghost batch's loss is noisy, so that a single update says little. There is no further pass.

    .. math:: a_{t+1} = a_t (1 + s)^{\pm 1},\quad + \text{ where } \bar L_{noisy} - L_{clean} < T L_{clean}

    Args:
        target: T > 0, in units of the clean loss; for the measure "gap" in nats.
        measure: "ratio" compares the difference with T times the clean loss, which must not be negative; "gap" with
            T itself.
        speed: s > 0, the relative change of one update.
        start: Relative noise r = ||theta|| / ||w|| to begin with, from which the first strength is computed.

    Example:
        >>> AutoStrength(target=0.2)
        AutoStrength(target=0.2, measure='ratio', speed=0.01, start=0.02)

    An idea of this project, and experimental: it did not meet the rule fixed beforehand for recommending it
    (docs/decisions/0011). docs/evidence.md says where it does as well as a tuned strength, and where not.
    """

    target: float = 0.15
    measure: Measure = "ratio"
    speed: float = 0.01
    start: float = 0.02

    def __post_init__(self) -> None:
        _checks.positive(
            "target", self.target, "It is what the noise may cost in loss, such as 0.15 of the clean loss."
        )
        _checks.one_of("measure", self.measure, Measure)
        _checks.positive("speed", self.speed, "It is the relative change of the strength in an update, such as 0.01.")
        _checks.positive("start", self.start, "It is the relative noise to begin with, such as 0.02.")


class Controller:
    """The state of :class:`AutoStrength`: losses seen in this update, and how fast the strength still changes."""

    def __init__(self, settings: AutoStrength) -> None:
        self.settings = settings
        self._fast = _FAST
        self._rose: bool | None = None
        self._ever = {True: False, False: False}  # whether clean and noisy losses were seen
        self.forget()

    def forget(self) -> None:
        """Drop the losses of this update."""
        self._sums: dict[bool, Tensor | float] = {True: 0.0, False: 0.0}
        self._counts = {True: 0, False: 0}

    def observe(self, loss: "Tensor | float", *, clean: bool) -> None:
        """Take in the mean loss of one ghost batch; nothing waits for the device.

        Raises:
            ValueError: If it is more than one number.
        """
        import torch

        loss = torch.as_tensor(loss)
        if loss.numel() != 1:
            raise ValueError(
                f"the loss observed has shape {tuple(loss.shape)}; expected one number. Pass the ghost batch's mean."
            )
        self._sums[clean] = self._sums[clean] + loss.detach().double().reshape(())
        self._counts[clean] += 1

    def gather(self, groups: "Sequence[Ranks]", where: "device | None") -> None:
        """Add up what all processes have observed in this update, so that all find the same strength.

        Each group adds up what those before it have summed. A process that is in two of them counts more often than
        once, as often as every other, so that means stay what they are.
        """
        import torch

        groups = [ranks for ranks in groups if ranks.size > 1]
        if not groups:
            return
        sums = [torch.as_tensor(self._sums[clean], dtype=torch.float64, device=where) for clean in (True, False)]
        counts = torch.tensor([self._counts[True], self._counts[False]], dtype=torch.float64, device=where)
        gathered = torch.cat([torch.stack(sums), counts])
        for ranks in groups:
            gathered = ranks.sum(gathered)
        loss_clean, loss_noisy, *counted = gathered
        self._sums = {True: loss_clean, False: loss_noisy}
        self._counts = {True: int(counted[0]), False: int(counted[1])}

    def update(self, strength: float) -> float:
        """The strength of the next update.

        Raises:
            RuntimeError: If no loss was observed, or in the first update no noisy one or no clean one.
            ValueError: For the measure "ratio", if the clean loss is negative.
        """
        clean, noisy = self._counts[True], self._counts[False]
        if clean + noisy == 0:
            raise RuntimeError(
                "the strength is 'auto' and no loss was observed in this update; it cannot be adapted. "
                "Call smoother.observe(loss) with each ghost batch's mean loss."
            )
        if noisy == 0 and not self._ever[False]:
            raise RuntimeError(
                "the strength is 'auto' and this update had one ghost batch, which stays clean: there was no noise. "
                "Split each batch into two or more ghost batches, each in its own perturbed() block."
            )
        if clean == 0 and not self._ever[True]:
            raise RuntimeError(
                "the strength is 'auto' and no ghost batch of this update stayed clean: none was stream 0. "
                "Number the ghost batches of all processes together from 0, or leave `stream` out."
            )
        self._ever = {True: self._ever[True] or clean > 0, False: self._ever[False] or noisy > 0}
        if clean and noisy:
            strength = self._changed(strength, *self._means())
        self.forget()
        return strength

    def _means(self) -> list[float]:
        """Of the clean and the noisy losses, fetched from the device at once; sums that were loaded are floats."""
        import torch

        means = [self._sums[clean] / self._counts[clean] for clean in (True, False)]
        tensors = [mean for mean in means if isinstance(mean, torch.Tensor)]
        return torch.stack(tensors).tolist() if len(tensors) == len(means) else [float(mean) for mean in means]

    def _changed(self, strength: float, clean: float, noisy: float) -> float:
        if self.settings.measure == "ratio" and clean < 0:
            raise ValueError(
                f"the clean loss is {clean:.4g} and the target a ratio to it; expected a loss that is not negative. "
                f"Use AutoStrength(measure='gap', target=...), in units of the loss."
            )
        unit = clean if self.settings.measure == "ratio" else 1.0
        below = noisy - clean < self.settings.target * unit  # False for nan, so that the noise falls
        if self._rose not in (None, below):
            self._fast = max(1.0, self._fast / 2)
        self._rose = below
        factor = 1 + self.settings.speed * self._fast
        changed = strength * factor if below else strength / factor
        return changed if math.isfinite(changed) else strength

    def state_dict(self) -> dict[str, Any]:
        """Plain numbers."""
        return {
            "fast": self._fast,
            "rose": self._rose,
            "ever": [self._ever[each] for each in (True, False)],
            "sums": [float(self._sums[each]) for each in (True, False)],
            "counts": [self._counts[each] for each in (True, False)],
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from a saved state."""
        self._fast, self._rose = state["fast"], state["rose"]
        self._ever = dict(zip((True, False), state["ever"], strict=True))
        self._sums = dict(zip((True, False), state["sums"], strict=True))
        self._counts = dict(zip((True, False), state["counts"], strict=True))
