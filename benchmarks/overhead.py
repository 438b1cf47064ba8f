"""What the noise costs: a step with noise against the same step without, interleaved in one run.

    python benchmarks/overhead.py [NETWORK ...]

A step is everything from zero_grad to optimizer.step (SGD with momentum) over all ghost batches. Prints medians of the
ratios of steps of a round, and writes benchmarks/results/overhead.json. "two copies" is a step that copies the
weights at each block, and copies them back.
"""

import contextlib
import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from steps import NETWORKS, Network, Training, environment, interleaved
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


def noisy(training: Training, make: Callable[[nn.Module], SmoothOut]) -> Callable[[], None]:
    """A step with noise."""
    smoother = make(training.model)
    return lambda: training.step(smoother.perturbed, smoother.step)


def copying(training: Training) -> Callable[[], None]:
    """A step that copies the weights that get noise, and copies them back."""
    snapshot, parameters = Snapshot(), SmoothOut(training.model, 0.02)._parameters

    @contextlib.contextmanager
    def block() -> Iterator[None]:
        snapshot.take(parameters)
        yield
        snapshot.restore()

    return lambda: training.step(block)


def measure(network: Network) -> dict[str, Any]:
    """Every arm against plain SGD, on one model."""
    training = Training(network)
    works: dict[str, Callable[[], None]] = {name: noisy(training, make) for name, make in ARMS.items()}
    works |= {"two copies": copying(training), "plain": lambda: training.step(contextlib.nullcontext)}
    found: dict[str, Any] = {"weights": sum(parameter.numel() for parameter in training.model.parameters())}
    for name, ratio in interleaved(works, "plain", network.rounds).items():
        found[name] = ratio.record()
        print(f"{network.name:<16} {name:<14} {ratio} times plain SGD", flush=True)
    return found


def main() -> None:
    """Measure every network."""
    rows = {name: measure(NETWORKS[name]) for name in sys.argv[1:] or NETWORKS}
    RESULTS.write_text(json.dumps({"environment": environment(), "networks": rows}, indent=1) + "\n")


if __name__ == "__main__":
    main()
