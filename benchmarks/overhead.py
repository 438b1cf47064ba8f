"""What the noise costs: a step with noise against the same step without, interleaved in one run.

    python benchmarks/overhead.py

A step is zero_grad, K ghost batches of 128 (forward, backward), and SGD with momentum, on the F1 MLP (1.46 M weights).
Prints medians of the ratios of neighbouring steps, and writes benchmarks/results/overhead.json.
"""

import json
import os
import platform
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch.nn import functional

from smoothout import AdaSmoothOut, SmoothOut, ghost_batches
from smoothout.train import models

GHOST, GHOSTS, PAIRS = 128, 16, 15
ARMS: dict[str, Callable[[torch.nn.Module], SmoothOut]] = {
    "SmoothOut": lambda model: SmoothOut(model, 0.02),
    "AdaSmoothOut": lambda model: AdaSmoothOut(model, 0.3),
    "weight scale": lambda model: SmoothOut(model, 0.1, scale="weight"),
    "normal": lambda model: SmoothOut(model, 0.02, distribution="normal"),
}


def stepper(make: Callable[[torch.nn.Module], SmoothOut]) -> Callable[[], float]:
    """A function that makes one step and returns its seconds."""
    model = models.build("mnist_f1", (784,), 10, seed=0)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9)
    smoother = make(model)
    inputs, targets = torch.randn(GHOST * GHOSTS, 784), torch.randint(0, 10, (GHOST * GHOSTS,))

    def step() -> float:
        began = time.perf_counter()
        optimizer.zero_grad()
        for x, y in ghost_batches(inputs, targets, size=GHOST):
            with smoother.perturbed():
                (functional.cross_entropy(model(x), y) / GHOSTS).backward()
        optimizer.step()
        smoother.step()
        return time.perf_counter() - began

    return step


def main() -> None:
    """Measure every arm against plain SGD."""
    rows = {}
    for name, make in ARMS.items():
        noisy, plain = stepper(make), stepper(lambda model: SmoothOut(model, 0.0))
        for warm_up in (noisy, plain, noisy, plain):
            warm_up()
        ratios = sorted(noisy() / plain() for _ in range(PAIRS))
        rows[name] = {"median": statistics.median(ratios), "lowest": ratios[0], "highest": ratios[-1]}
        print(
            f"{name:<14} {rows[name]['median']:.2f} ({ratios[0]:.2f} to {ratios[-1]:.2f}) times plain SGD", flush=True
        )
    environment = {
        "torch": torch.__version__,
        "python": platform.python_version(),
        "machine": platform.machine(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
    }
    results = Path(__file__).parent / "results" / "overhead.json"
    results.write_text(json.dumps({"environment": environment, "ratios": rows}, indent=1) + "\n")


if __name__ == "__main__":
    main()
