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
NETWORKS = ("F1", "cifar10_shallow", "resnet-44", "alexnet", "transformer")
F1 = {"SmoothOut": 1.06, "AdaSmoothOut": 1.10, "weight scale": 1.10, "normal": 1.10}
PEERS = {"naive": 0.68, "SAM": 0.55, "IVON": 0.45}
NAMED = {"SmoothOut": "with noise", "AdaSmoothOut": "by filter", "normal": "with normal noise"}
ON_GPU = ("eager", "compiled", "resnet-50", "epoch of resnet-44")


def goals(found: dict[str, Any]) -> Iterator[Goal]:
    """Names, values and what must hold of them; None for what was not measured."""
    networks = found["overhead"].get("networks", {})
    for network in NETWORKS:
        row = networks.get(network, {})
        for arm, f1 in F1.items():
            bound = f1 if network == "F1" else OTHERS
            if network == "alexnet" and row:
                bound = row["two copies"]["median"] + 0.02
            value = row[arm]["median"] if row else None
            yield f"{arm} on {network}: times plain SGD, <= {bound:.3f}", value, AT_MOST(bound)
    for peer, bound in PEERS.items():
        row = found["peers"].get("times ours", {})
        yield f"ours / {peer} on F1 <= {bound}", 1 / row[peer]["median"] if row else None, AT_MOST(bound)
    for arm in ("SmoothOut", "AdaSmoothOut", "normal"):
        above = found["memory"].get("above, weights", {}).get(arm)
        yield f"{arm}: peak memory above plain, times the weights, <= 1.05", above, AT_MOST(1.05)
    for arm in ("without noise", "with noise"):
        row = found["throughput"].get("plain / ours", {}).get(arm)
        yield f"plain loop / ours {arm} >= 1.2", row["median"] if row else None, lambda value: value >= 1.2
    tensors, weights = (
        [row["ratio"] for row in found["growth"].get(kind, [])][skipped:]
        for kind, skipped in (("tensors", 0), ("weights", 2))
    )
    grown = tensors[-1] / tensors[0] if tensors else None
    yield "4096 tensors against one: block / two copies, <= 1.5", grown, AT_MOST(1.5)
    grown = max(weights) / weights[0] if weights else None
    yield "10 M to 300 M weights: block / two copies grows by <= 1.2", grown, AT_MOST(1.2)
    for name in ON_GPU:
        yield f"on a GPU: {name}", None, AT_MOST(0)


def read(name: str) -> dict[str, Any]:
    """A benchmark's result, empty where it was not run."""
    path = HERE / "results" / f"{name}.json"
    found: dict[str, Any] = json.loads(path.read_text()) if path.is_file() else {}
    return found


def table() -> tuple[list[str], str]:
    """Lines of the page, and the summary."""
    found = {name: read(name) for name in NAMES}
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
    row = read("overhead")["networks"]["F1"]
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
