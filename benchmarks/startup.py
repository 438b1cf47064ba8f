"""Seconds that a command, an import and the first noise of a process take.

    python benchmarks/startup.py

Medians over fresh processes, one of each kind after the other in every round. Their byte code and files are warm, as
they are from the second start on. What an import adds to torch's is the difference of two processes ("above torch");
for SmoothOut it is also timed inside one ("after torch"). So is the first noise: from before the first smoother is made
to after its block is left ("first block"), once with an empty cache of numba's, once with the cache that this left.
Writes benchmarks/results/startup.json.
"""

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from pathlib import Path
from typing import Any

from steps import environment

RESULTS = Path(__file__).parent / "results" / "startup.json"
ROUNDS = 3
SMOOTHOUT = [sys.executable, str(Path(sys.executable).with_name("smoothout"))]
PYTHON = [sys.executable, "-c"]
PROCESSES = {
    "smoothout --help": [*SMOOTHOUT, "--help"],
    "smoothout train --help": [*SMOOTHOUT, "train", "--help"],
    "import torch": [*PYTHON, "import torch"],
    "import torch, smoothout": [*PYTHON, "import torch, smoothout"],
    "import torch, SmoothOut": [*PYTHON, "import torch; from smoothout import SmoothOut"],
}
IMPORT_AFTER_TORCH = """
import time, torch
began = time.perf_counter()
from smoothout import SmoothOut
print(time.perf_counter() - began)
"""
FIRST_NOISE = """
import json, time, torch
from smoothout import SmoothOut
model = torch.nn.Sequential(torch.nn.Linear(784, 512), torch.nn.ReLU(), torch.nn.Linear(512, 10))
began = time.perf_counter()
with SmoothOut(model, 0.01, scale="SCALE").perturbed():
    pass
print(time.perf_counter() - began)
from smoothout.kernels import choose
assert choose.numba_works("SCALE", "uniform", False)
"""
FIRST = {"SmoothOut": "none", "AdaSmoothOut": "filter"}


def run(words: list[str], environ: dict[str, str]) -> tuple[float, str]:
    """Seconds that a process takes, and what it prints."""
    began = time.perf_counter()
    done = subprocess.run(words, env=environ, capture_output=True, text=True, check=True)
    return time.perf_counter() - began, done.stdout


def one_round(environ: dict[str, str]) -> dict[str, float]:
    """Seconds of everything, each in a process of its own."""
    found = {name: run(words, environ)[0] for name, words in PROCESSES.items()}
    found["SmoothOut after torch"] = float(run([*PYTHON, IMPORT_AFTER_TORCH], environ)[1])
    with tempfile.TemporaryDirectory() as cache:
        for state in ("empty", "filled"):
            for name, scale in FIRST.items():
                words = [*PYTHON, FIRST_NOISE.replace("SCALE", scale)]
                _, printed = run(words, {**environ, "NUMBA_CACHE_DIR": cache})
                found[f"first block of {name}, {state} cache"] = float(printed)
    for name in ("smoothout", "SmoothOut"):
        found[f"{name} above torch"] = found[f"import torch, {name}"] - found["import torch"]
    return found


def main() -> None:
    """Measure round after round."""
    rounds = defaultdict(list)
    with tempfile.TemporaryDirectory() as byte_code:
        environ = {**os.environ, "PYTHONPYCACHEPREFIX": byte_code}
        environ.pop("PYTHONDONTWRITEBYTECODE", None)
        one_round(environ)  # leaves the byte code
        for _ in range(ROUNDS):
            for name, seconds in one_round(environ).items():
                rounds[name].append(seconds)
    record: dict[str, Any] = {"environment": environment(), "seconds": {}, "rounds": rounds}
    for name, seconds in rounds.items():
        record["seconds"][name] = statistics.median(seconds)
        print(f"{name}: {record['seconds'][name]:.3f} s ({min(seconds):.3f} to {max(seconds):.3f})")
    RESULTS.write_text(json.dumps(record, indent=1) + "\n")


if __name__ == "__main__":
    main()
