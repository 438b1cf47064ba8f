"""Peak memory of a step with noise above that of a step without, as a multiple of the weights that get noise (Linux).

    python benchmarks/memory.py

An MLP of 50 M weights, a process for each arm, noise as `smoothout train` has it. The plain step's process loads the
compiled kernels, too, which take the
same memory whatever the weights; that is measured apart. Writes benchmarks/results/memory.json.
"""

import json
import subprocess
import sys
from pathlib import Path

import torch
from steps import Network, Training, environment, noisy
from torch import nn

from smoothout import AdaSmoothOut, SmoothOut
from smoothout.kernels import choose

RESULTS = Path(__file__).parent / "results" / "memory.json"
WIDTH = 5000


def build() -> nn.Module:
    """Two square layers and a head."""
    return nn.Sequential(nn.Linear(WIDTH, WIDTH), nn.ReLU(), nn.Linear(WIDTH, WIDTH), nn.ReLU(), nn.Linear(WIDTH, 10))


NETWORK = Network("MLP", build, (WIDTH,), 16, 2, 1)
ARMS = {
    "without kernels": None,
    "plain": None,
    "SmoothOut": lambda model: SmoothOut(model, 0.01),
    "AdaSmoothOut": lambda model: AdaSmoothOut(model, 0.1),
    "normal": lambda model: SmoothOut(model, 0.01, distribution="normal"),
}


def peak(arm: str) -> None:
    """Print the highest memory of this process in bytes from the first step on."""
    training, make = Training(NETWORK), ARMS[arm]
    smoother = None if make is None else make(training.model)
    if arm != "without kernels":
        for scale, distribution in (("none", "uniform"), ("filter", "uniform"), ("none", "normal")):
            assert choose.numba_works(scale, distribution, False)
    for _ in range(3):
        if smoother is None:
            training.step()
        else:
            training.step(noisy(smoother), smoother.step)
    lines = Path("/proc/self/status").read_text().splitlines()
    print(1024 * next(int(line.split()[1]) for line in lines if line.startswith("VmHWM")))


def main() -> None:
    """Measure every arm."""
    peaks = {}
    for arm in ARMS:
        words = [sys.executable, __file__, "--peak", arm]
        peaks[arm] = int(subprocess.run(words, capture_output=True, text=True, check=True).stdout)
    weights = sum(parameter.nbytes for parameter in build().parameters())
    fixed = peaks["plain"] - peaks["without kernels"]
    above = {arm: (found - peaks["plain"]) / weights for arm, found in peaks.items() if ARMS[arm] is not None}
    print(f"peak above plain, times the weights: { {arm: round(value, 3) for arm, value in above.items()} }")
    print(f"the kernels themselves: {fixed / 1e6:.0f} MB")
    record = {"environment": environment(), "weights, bytes": weights, "peaks, bytes": peaks, "above, weights": above}
    RESULTS.write_text(json.dumps(record, indent=1) + "\n")


if __name__ == "__main__":
    torch.set_num_threads(2)
    if sys.argv[1:2] == ["--peak"]:
        peak(sys.argv[2])
    else:
        main()
