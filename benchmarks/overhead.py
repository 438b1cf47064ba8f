"""What the noise costs: a step with noise against the same step without, interleaved in one run.

    python benchmarks/overhead.py [NETWORK ...]

A step is everything from zero_grad to optimizer.step (SGD with momentum) over all ghost batches, each with noise of its
own by `each`, as `smoothout train` has it. Prints medians of the ratios of steps of a round, and what entering the
block, drawing anew and leaving take of a step, timed inside it: where that is a small share, other work on the machine
moves the ratio by more. Writes benchmarks/results/overhead.json. "two copies" is a step that copies the weights before
each ghost batch, and copies them back after it.
"""

import contextlib
import json
import statistics
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from steps import NETWORKS, Enter, Network, Training, Walk, blocks, environment, interleaved, noisy, seconds, timed
from torch import nn

from smoothout import AdaSmoothOut, SmoothOut
from smoothout.weights import Snapshot

RESULTS = Path(__file__).parent / "results" / "overhead.json"
ARMS: dict[str, Callable[[nn.Module], SmoothOut]] = {
    "SmoothOut": lambda model: SmoothOut(model, 0.02),
    "AdaSmoothOut": lambda model: AdaSmoothOut(model, 0.3),
    "weight scale": lambda model: SmoothOut(model, 0.1, scale="weight"),
    "normal": lambda model: SmoothOut(model, 0.02, distribution="normal"),
}


class Arm:
    """A step whose walk over the ghost batches is timed.

    Args:
        training: Whose model it perturbs.
        walk: Perturbs it.
        after: Follows a step.
    """

    def __init__(self, training: Training, walk: Walk, after: Callable[[], None] = lambda: None) -> None:
        self._training, self._after = training, after
        self._walk = timed(walk, self._took)
        self._inside = 0.0
        self.shares: list[float] = []

    def step(self) -> None:
        """Make one, and note how much of it went to the walk, over the rest."""
        self._inside = 0.0
        whole = seconds(lambda: self._training.step(self._walk, self._after))
        self.shares.append(self._inside / (whole - self._inside))

    def _took(self, seconds: float) -> None:
        self._inside += seconds


def arm(training: Training, make: Callable[[nn.Module], SmoothOut]) -> Arm:
    """Steps with noise."""
    smoother = make(training.model)
    return Arm(training, noisy(smoother), smoother.step)


def copies(training: Training) -> Enter:
    """Blocks that copy the weights that get noise, and copy them back."""
    snapshot, parameters = Snapshot(), SmoothOut(training.model, 0.02)._parameters

    @contextlib.contextmanager
    def block() -> Iterator[None]:
        snapshot.take(parameters)
        yield
        snapshot.restore()

    return block


def measure(network: Network) -> dict[str, Any]:
    """Every arm against plain SGD, on one model."""
    training = Training(network)
    arms = {name: arm(training, make) for name, make in ARMS.items()} | {
        "two copies": Arm(training, blocks(copies(training)))
    }
    works: dict[str, Callable[[], None]] = {name: each.step for name, each in arms.items()}
    works["plain"] = training.step
    found: dict[str, Any] = {"weights": sum(parameter.numel() for parameter in training.model.parameters())}
    for name, ratio in interleaved(works, "plain", network.rounds).items():
        inside = 1 + statistics.median(arms[name].shares[2:])
        found[name] = ratio.record() | {"by blocks": inside}
        print(f"{network.name:<16} {name:<14} {ratio} times plain SGD, by the blocks {inside:.3f}", flush=True)
    return found


def main() -> None:
    """Measure every network."""
    rows = {name: measure(NETWORKS[name]) for name in sys.argv[1:] or NETWORKS}
    RESULTS.write_text(json.dumps({"environment": environment(), "networks": rows}, indent=1) + "\n")


if __name__ == "__main__":
    main()
