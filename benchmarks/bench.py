"""All benchmarks of a training step, and which of their goals are met.

    make bench

Runs each in a process of its own, and ends with the number of goals met, missed and not measured. Goals are those of
docs/performance.md.
"""

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
NAMES = ("overhead", "peers", "memory", "throughput", "growth")
Goal = tuple[str, float | None, Callable[[float], bool]]
AT_MOST: Callable[[float], Callable[[float], bool]] = lambda bound: lambda value: value <= bound  # noqa: E731
OTHERS = 1.02  # of networks with more arithmetic for each weight
F1 = {"SmoothOut": 1.06, "AdaSmoothOut": 1.10, "weight scale": 1.10, "normal": 1.10}
PEERS = {"naive": 0.68, "SAM": 0.55, "IVON": 0.45}
ON_GPU = ("eager", "compiled", "resnet-50", "epoch of resnet-44")


def goals(found: dict[str, Any]) -> Iterator[Goal]:
    """Names, values and what must hold of them; None for what was not measured."""
    for network, row in found["overhead"]["networks"].items():
        for arm, f1 in F1.items():
            bound = f1 if network == "F1" else OTHERS
            if network == "alexnet":
                bound = row["two copies"]["median"] + 0.02
            yield f"{arm} on {network}: times plain SGD, <= {bound:.3f}", row[arm]["median"], AT_MOST(bound)
    for peer, bound in PEERS.items():
        ratio = 1 / found["peers"]["times ours"][peer]["median"]
        yield f"ours / {peer} on F1 <= {bound}", ratio, AT_MOST(bound)
    for arm, above in found["memory"]["above, weights"].items():
        yield f"{arm}: peak memory above plain, times the weights, <= 1.05", above, AT_MOST(1.05)
    for arm, row in found["throughput"]["plain / ours"].items():
        yield f"plain loop / ours {arm} >= 1.2", row["median"], lambda value: value >= 1.2
    of_tensors = [row["ratio"] for row in found["growth"]["tensors"]]
    yield "4096 tensors against one: block / two copies, <= 1.5", of_tensors[-1] / of_tensors[0], AT_MOST(1.5)
    of_weights = [row["ratio"] for row in found["growth"]["weights"][2:]]
    yield "10 M to 300 M weights: block / two copies grows by <= 1.2", max(of_weights) / of_weights[0], AT_MOST(1.2)
    for name in ON_GPU:
        yield f"on a GPU: {name}", None, AT_MOST(0)


def main() -> None:
    """Run everything, then say what was reached."""
    for name in NAMES:
        print(f"-- {name}", flush=True)
        subprocess.run([sys.executable, HERE / f"{name}.py"], check=True)
    found = {name: json.loads((HERE / "results" / f"{name}.json").read_text()) for name in NAMES}
    counts = {"met": 0, "missed": 0, "not measured": 0}
    for name, value, holds in goals(found):
        outcome = "not measured" if value is None else "met" if holds(value) else "missed"
        counts[outcome] += 1
        print(f"{outcome:<13} {name}" + ("" if value is None else f": {value:.3f}"))
    print("goals: " + ", ".join(f"{count} {outcome}" for outcome, count in counts.items()))


if __name__ == "__main__":
    main()
