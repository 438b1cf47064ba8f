"""How the cost of a block grows: with the weights, and with the number of tensors they are cut into.

    python benchmarks/growth.py

A block is perturb and restore without anything inside. Beside it, in the same run, two bare copies of the same weights,
there and back: what memory allows. Writes benchmarks/results/growth.json.
"""

import json
import statistics
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from steps import environment, seconds
from torch import nn

from smoothout import SmoothOut
from smoothout.weights import Snapshot

RESULTS = Path(__file__).parent / "results" / "growth.json"
WEIGHTS = (100_000, 1_000_000, 10_000_000, 100_000_000, 300_000_000)
TENSORS = (1, 16, 256, 4096)
CUT = 16_777_216  # weights that are cut into so many tensors


def measure(parameters: list[tuple[str, nn.Parameter]], wait: Callable[[], None] = lambda: None) -> dict[str, float]:
    """Medians over pairs of a block and two copies; ``wait`` is for the device."""
    smoother, snapshot = SmoothOut(parameters, 0.01), Snapshot()
    own = [parameter for _, parameter in parameters]

    def block() -> None:
        with smoother.perturbed():
            pass
        smoother.step()
        wait()

    def copies() -> None:
        snapshot.take(own)
        snapshot.restore()
        wait()

    return paired(block, copies) | {"weights": sum(p.numel() for p in own), "tensors": len(own)}


def paired(block: Callable[[], None], copies: Callable[[], None], pairs: int = 15) -> dict[str, float]:
    """Seconds of both and their ratio."""
    for _ in range(2):
        block()
        copies()
    times = [(seconds(block), seconds(copies)) for _ in range(pairs)]
    return {
        "block, seconds": statistics.median(a for a, _ in times),
        "two copies, seconds": statistics.median(b for _, b in times),
        "ratio": statistics.median(a / b for a, b in times),
    }


def main() -> None:
    """Measure both kinds of growth."""
    rows: dict[str, list[dict[str, Any]]] = {"weights": [], "tensors": []}
    for count in WEIGHTS:
        rows["weights"].append(measure([("w", nn.Parameter(torch.randn(count)))]))
        print(rows["weights"][-1], flush=True)
    for tensors in TENSORS:
        pieces = [(str(i), nn.Parameter(torch.randn(CUT // tensors))) for i in range(tensors)]
        rows["tensors"].append(measure(pieces))
        print(rows["tensors"][-1], flush=True)
    RESULTS.write_text(json.dumps({"environment": environment(), **rows}, indent=1) + "\n")


if __name__ == "__main__":
    main()
