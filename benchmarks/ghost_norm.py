"""One pass with ghost norms against the loop over ghost batches: seconds of forward and backward, interleaved.

    python benchmarks/ghost_norm.py [--keep-memory] [ghost sizes]

The model is ``resnet`` (CIFAR ResNet-44) at K = 16 ghost batches of 3x32x32; on CUDA if there is one. Prints medians
and quartiles of the ratios loop / one pass of neighbouring runs (above 1: one pass is faster), and writes
benchmarks/results/ghost_norm.json after every size. With --keep-memory glibc does not give large tensors back to the
system, which costs more than the arithmetic of a large batch.
"""

import copy
import json
import os
import platform
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch.nn import functional

from smoothout.ghost_norm import convert_ghost_batchnorm
from smoothout.large_batch import ghost_batches
from smoothout.train.models.resnet import CifarResNet

GHOSTS, PAIRS, SIZES = 16, 5, (8, 16, 32, 64)
KEEP = {"MALLOC_MMAP_MAX_": "0", "MALLOC_TRIM_THRESHOLD_": "100000000000", "MALLOC_TOP_PAD_": "1000000000"}
DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")


def seconds(work: Callable[[], None]) -> float:
    """Seconds that ``work`` takes, the device's queue included."""
    began = time.perf_counter()
    work()
    if DEVICE.type == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - began


def arms(size: int) -> tuple[Callable[[], None], Callable[[], None]]:
    """The loop and the one pass: gradients of the same loss on the same batch."""
    torch.manual_seed(0)
    plain = CifarResNet(3, 10).to(DEVICE)
    ghost = convert_ghost_batchnorm(copy.deepcopy(plain), size)
    inputs = torch.randn(GHOSTS * size, 3, 32, 32, device=DEVICE)
    targets = torch.randint(0, 10, (GHOSTS * size,), device=DEVICE)

    def loop() -> None:
        plain.zero_grad()
        for x, y in ghost_batches(inputs, targets, size=size):
            (functional.cross_entropy(plain(x), y) / GHOSTS).backward()

    def one_pass() -> None:
        ghost.zero_grad()
        functional.cross_entropy(ghost(inputs), targets).backward()

    return loop, one_pass


def measure(size: int) -> dict[str, object]:
    """Ratios and seconds of one ghost size."""
    loop, one_pass = arms(size)
    loop(), one_pass()
    times = [(seconds(loop), seconds(one_pass)) for _ in range(PAIRS)]
    low, median, high = statistics.quantiles((a / b for a, b in times), n=4, method="inclusive")
    print(f"ghost batches of {size:>3}: one pass {median:.2f} ({low:.2f} to {high:.2f}) times as fast", flush=True)
    return {
        "loop / one pass": {"median": median, "lower quartile": low, "upper quartile": high},
        "loop seconds": statistics.median(a for a, _ in times),
        "one pass seconds": statistics.median(b for _, b in times),
    }


def main() -> None:
    """Measure the ghost sizes with the allocator as it is, or as one that keeps its memory."""
    kept = "--keep-memory" in sys.argv
    if kept and not os.environ.keys() >= KEEP.keys():
        os.execve(sys.executable, [sys.executable, *sys.argv], os.environ | KEEP)
    results = Path(__file__).parent / "results" / "ghost_norm.json"
    record = json.loads(results.read_text()) if results.is_file() else {}
    rows = {}
    for size in [int(word) for word in sys.argv[1:] if word.isdigit()] or SIZES:
        rows[str(size)] = measure(size)
        record["environment"] = {
            "torch": torch.__version__,
            "python": platform.python_version(),
            "machine": platform.machine(),
            "device": torch.cuda.get_device_name() if DEVICE.type == "cuda" else "cpu",
            "cores": os.cpu_count(),
            "threads": torch.get_num_threads(),
        }
        record |= {"ghosts": GHOSTS, "pairs": PAIRS}
        record["sizes, glibc keeping its memory" if kept else "sizes"] = rows
        results.write_text(json.dumps(record, indent=1) + "\n")


if __name__ == "__main__":
    main()
