"""All benchmarks of a training step, and which of their goals are met.

    make bench

Runs each in a process of its own, puts the table of goals into docs/performance.md and a sentence into README.md, and
ends with how many are met, missed and not measured. With --page it runs nothing and writes what the results there say.
"""

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
PAGE, README = HERE.parent / "docs" / "performance.md", HERE.parent / "README.md"
FROM, TO = "<!-- written by benchmarks/bench.py -->\n", "<!-- up to here -->\n"
NAMES = ("overhead", "peers", "memory", "throughput", "growth")
Goal = tuple[str, float | None, Callable[[float], bool]]
AT_MOST: Callable[[float], Callable[[float], bool]] = lambda bound: lambda value: value <= bound  # noqa: E731
OTHERS = 1.02  # of networks with more arithmetic for each weight
F1 = {"SmoothOut": 1.06, "AdaSmoothOut": 1.10, "weight scale": 1.10, "normal": 1.10}
PEERS = {"naive": 0.68, "SAM": 0.55, "IVON": 0.45}
NAMED = {"SmoothOut": "with noise", "AdaSmoothOut": "by filter", "normal": "with normal noise"}
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


def table() -> tuple[list[str], str]:
    """Lines of the page, and the summary."""
    found = {name: json.loads((HERE / "results" / f"{name}.json").read_text()) for name in NAMES}
    where = found["overhead"]["environment"]
    lines = [
        f"Measured with torch {where['torch']}, {where['threads']} threads, {where['instructions']} instructions.",
        "",
        "| goal | measured | |",
        "|---|---|---|",
    ]
    counts = {"met": 0, "missed": 0, "not measured": 0}
    for name, value, holds in goals(found):
        outcome = "not measured" if value is None else "met" if holds(value) else "missed"
        counts[outcome] += 1
        lines.append(f"| {name} | {'' if value is None else f'{value:.3f}'} | {outcome} |")
    return lines, "goals: " + ", ".join(f"{count} {outcome}" for outcome, count in counts.items())


def sentence() -> str:
    """For README."""
    row = json.loads((HERE / "results" / "overhead.json").read_text())["networks"]["F1"]
    times = ", ".join(f"{row[arm]['median']:.2f} times as long {name}" for arm, name in NAMED.items())
    return (
        f"On a CPU a step of an MLP of {row['weights'] / 1e6:.1f} M weights, in ghost batches of 128, takes {times} as "
        f"it does without ([all goals and figures](docs/performance.md))."
    )


def replace_part(page: Path, part: str) -> None:
    """Put a part between the marks of a page."""
    before, rest = page.read_text(encoding="utf-8").split(FROM)
    page.write_text(f"{before}{FROM}{part}{TO}{rest.split(TO, 1)[1]}", encoding="utf-8")


def write_pages() -> str:
    """Put the table into docs/performance.md and a sentence into README; returns the summary."""
    lines, summary = table()
    replace_part(PAGE, "\n".join([*lines, "", f"{summary}.", ""]))
    replace_part(README, f"{sentence()}\n")
    return summary


def main() -> None:
    """Run everything, then say what was reached."""
    if sys.argv[1:] != ["--page"]:
        for name in NAMES:
            print(f"-- {name}", flush=True)
            subprocess.run([sys.executable, HERE / f"{name}.py"], check=True)
    summary = write_pages()
    print("\n".join(table()[0]))
    print(summary)


if __name__ == "__main__":
    main()
