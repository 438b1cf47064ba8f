"""All benchmarks of a training step, and which of their goals are met.

    python benchmarks/bench.py [--runs N | --page]

Runs each in a process of its own, those of a GPU where there is one, puts the table of goals into docs/performance.md
and a sentence into README.md, and ends with how many are met, missed and not measured. With --runs each is run so
often, and medians are kept. With --page nothing is run, and what the results there say is written.
"""

import argparse
import json
import statistics
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch

HERE = Path(__file__).parent
PAGE, README = HERE.parent / "docs" / "performance.md", HERE.parent / "README.md"
FROM, TO = "<!-- written by benchmarks/bench.py -->\n", "<!-- up to here -->\n"
NAMES = ("overhead", "peers", "memory", "throughput", "growth", "startup", "loader", "blocks")
GPU = ("gpu", "gpu_epoch")
Goal = tuple[str, float | None, Callable[[float], bool]]
AT_MOST: Callable[[float], Callable[[float], bool]] = lambda bound: lambda value: value <= bound  # noqa: E731
OTHERS = 1.02  # of networks with more arithmetic for each weight
NETWORKS = ("F1", "cifar10_shallow", "resnet-44", "alexnet", "transformer")
F1 = {"SmoothOut": 1.06, "AdaSmoothOut": 1.10, "weight scale": 1.10, "normal": 1.10}
PEERS = {"naive": 0.68, "SAM": 0.55, "IVON": 0.45}
NAMED = {"SmoothOut": "with noise", "AdaSmoothOut": "by filter", "normal": "with normal noise"}
STARTUP = {
    "smoothout --help": 0.4,
    "SmoothOut after torch": 0.1,
    "first block of SmoothOut, empty cache": 3.0,
    "first block of AdaSmoothOut, empty cache": 3.0,
    "first block of SmoothOut, filled cache": 1.0,
}
#: Of a GPU: SmoothOut, times plain SGD.
ON_GPU = {
    "resnet-44, eager": 1.05,
    "transformer, eager": 1.05,
    "resnet-44, compiled": 1.03,
    "transformer, compiled": 1.03,
    "resnet-50, eager": 1.01,
}


def goals(found: dict[str, Any]) -> Iterator[Goal]:
    """Names, values and what must hold of them; None for what was not measured."""
    networks = found["overhead"].get("networks", {})
    for network in NETWORKS:
        row = networks.get(network, {})
        for arm, f1 in F1.items():
            if network == "F1":
                value = row[arm]["median"] if row else None
                yield f"{arm} on F1: times plain SGD, <= {f1:.3f}", value, AT_MOST(f1)
                continue
            bound = row["two copies"]["by blocks"] + 0.02 if network == "alexnet" and row else OTHERS
            value = row[arm]["by blocks"] if row else None
            yield f"{arm} on {network}: times plain SGD, by the blocks, <= {bound:.3f}", value, AT_MOST(bound)
    for peer, bound in PEERS.items():
        row = found["peers"].get("times ours", {})
        yield f"ours / {peer} on F1 <= {bound}", 1 / row[peer]["median"] if row else None, AT_MOST(bound)
    for arm in ("SmoothOut", "AdaSmoothOut", "normal"):
        above = found["memory"].get("above, weights", {}).get(arm)
        yield f"{arm}: peak memory above plain, times the weights, <= 1.05", above, AT_MOST(1.05)
    for noise in ("without noise", "with noise"):
        row = found["throughput"].get("plain / ours", {}).get(f"--channels-last {noise}")
        value = row["plain"]["median"] if row else None
        yield f"plain loop / smoothout train --channels-last {noise} >= 1.2", value, lambda value: value >= 1.2
    tensors, weights = (
        [row["ratio"] for row in found["growth"].get(kind, [])][skipped:]
        for kind, skipped in (("tensors", 0), ("weights", 2))
    )
    grown = tensors[-1] / tensors[0] if tensors else None
    yield "4096 tensors against one: block / two copies, <= 1.5", grown, AT_MOST(1.5)
    grown = max(weights) / weights[0] if weights else None
    yield "10 M to 300 M weights: block / two copies grows by <= 1.2", grown, AT_MOST(1.2)
    for name, bound in STARTUP.items():
        yield f"{name}: seconds <= {bound}", found["startup"].get("seconds", {}).get(name), AT_MOST(bound)
    for name in ("cifar10_shallow", "resnet-44"):
        row = found["loader"].get("loader / step", {}).get(name)
        yield f"loader's share of a step of {name} <= 0.03", row["median"] if row else None, AT_MOST(0.03)
    yield from goals_of_gpu(found)


def goals_of_gpu(found: dict[str, Any]) -> Iterator[Goal]:
    """The same, of a GPU."""
    for name, bound in ON_GPU.items():
        row = found["gpu"].get(name, {}).get("SmoothOut")
        yield f"GPU: SmoothOut on {name}: times plain SGD, <= {bound}", row["median"] if row else None, AT_MOST(bound)
    ways = [row["median"] for row in found["gpu_epoch"].get("naive / ours", {}).values()]
    yield "GPU: naive loop / epoch of resnet-44 >= 3", max(ways, default=None), lambda value: value >= 3


def read(name: str) -> dict[str, Any]:
    """A benchmark's result, empty where it was not run."""
    path = HERE / "results" / f"{name}.json"
    found: dict[str, Any] = json.loads(path.read_text()) if path.is_file() else {}
    return found


def table() -> tuple[list[str], str]:
    """Lines of the page, and the summary."""
    found = {name: read(name) for name in (*NAMES, *GPU)}
    where = found["overhead"]["environment"]
    gpu = found["gpu"].get("environment")
    beside = f", and on one {gpu['gpu']} with torch {gpu['torch']}" if gpu else ""
    lines = [
        f"Measured with torch {where['torch']}, {where['threads']} threads, {where['instructions']}{beside}.",
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


def rows_of_cpu() -> list[str]:
    """Lines of the page: what steps with noise take, as ratios of whole steps and by the blocks alone."""
    lines = ["| network | weights | | times plain SGD | 95 % | by the blocks |", "|---|---|---|---|---|---|"]
    for network, row in read("overhead")["networks"].items():
        for arm in (*F1, "two copies"):
            found = row[arm]
            cells = (
                f"{found['median']:.3f}",
                f"{found['low']:.3f} to {found['high']:.3f}",
                f"{found['by blocks']:.3f}",
            )
            lines.append(f"| {network} | {row['weights']:,} | {arm} | {' | '.join(cells)} |")
    return lines


def rows_of_throughput() -> list[str]:
    """Lines of the page: the training loop against a plain one, and networks in both memory formats."""
    found = read("throughput")
    lines = [
        "| an epoch of cifar10_shallow, `smoothout train` with | plain loop / ours | both in channels_last |",
        "|---|---|---|",
    ]
    for name, row in found["plain / ours"].items():
        cells = (f"{row[loop]['median']:.2f}" if loop in row else "" for loop in ("plain", "plain, channels_last"))
        lines.append(f"| {name} | {' | '.join(cells)} |")
    lines += ["", "| a step of | row-major / channels_last |", "|---|---|"]
    lines += [f"| {name} | {row['median']:.2f} |" for name, row in found["row-major / channels_last"].items()]
    return lines


def rows_of_blocks() -> list[str]:
    """Lines of the page: where a block's time goes."""
    ways = ("in", "in, kernel", "redraw", "redraw, kernel", "out", "out, kernel")
    lines = [
        "| network | | way in, ms | the kernel | drawn anew, ms | the kernel | way out, ms | the kernel |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for network, arms in read("blocks").get("milliseconds", {}).items():
        for arm, row in arms.items():
            cells = (f"{row[way]:.2f}" if way in row else "" for way in ways)
            lines.append(f"| {network} | {arm} | {' | '.join(cells)} |")
    return lines


def rows_of_gpu() -> list[str]:
    """Lines of the page: what was measured on a GPU, goals or not."""
    found, epochs = read("gpu"), read("gpu_epoch").get("naive / ours", {})
    measured = {name: row for name, row in found.items() if "SmoothOut" in row}
    arms = list(dict.fromkeys(arm for row in measured.values() for arm in row))
    if not measured:
        return ["Not measured."]
    lines: list[str] = []
    for title, key in (("times plain SGD", "median"), ("by the blocks, in the host's time", "by blocks")):
        having = {name: row for name, row in measured.items() if key in row["SmoothOut"]}
        if having:
            lines += [f"| {title} | {' | '.join(arms)} |", "|---" * (len(arms) + 1) + "|"]
        for name, row in having.items():
            cells = [f"{row[arm][key]:.3f}" if key in row.get(arm, {}) else "" for arm in arms]
            lines.append(f"| {name} | {' | '.join(cells)} |")
        lines.append("")
    lines += ["| epoch of resnet-44, `smoothout train` with | naive loop / ours | seconds |", "|---|---|---|"]
    lines += [f"| {name or 'no option'} | {row['median']:.2f} | {row['seconds']:.2f} |" for name, row in epochs.items()]
    lines += ["", "| weights | tensors | block, ms | two bare copies, ms |", "|---|---|---|---|"]
    for row in [*found["growth"]["weights"], *found["growth"]["tensors"]]:
        block, copies = (f"{1000 * row[name]:.2f}" for name in ("block, seconds", "two copies, seconds"))
        lines.append(f"| {row['weights']:,} | {row['tensors']} | {block} | {copies} |")
    return lines


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
    sections = {
        "On a CPU": rows_of_cpu(),
        "Inside a block": rows_of_blocks(),
        "The training loop": rows_of_throughput(),
        "On a GPU": rows_of_gpu(),
    }
    part = [*lines, "", f"{summary}.", ""]
    for title, rows in sections.items():
        part += [f"## {title}", "", *rows, ""]
    replace_part(PAGE, "\n".join(part))
    replace_part(README, f"{sentence()}\n")
    return summary


def medians(records: list[Any]) -> Any:
    """Records of the same shape as one, with the median of each number."""
    first = records[0]
    if isinstance(first, dict):
        return {name: medians([record[name] for record in records]) for name in first}
    if isinstance(first, list):
        return [medians(list(values)) for values in zip(*records, strict=True)]
    return statistics.median(records) if isinstance(first, float) else first


def measure(name: str, runs: int) -> None:
    """Run a benchmark so often, and leave the medians where it leaves its results."""
    records = []
    for _ in range(runs):
        subprocess.run([sys.executable, HERE / f"{name}.py"], check=True)
        records.append(read(name))
    record = {"runs": runs} | medians(records)
    (HERE / "results" / f"{name}.json").write_text(json.dumps(record, indent=1) + "\n")


def main() -> None:
    """Run everything, then say what was reached."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--runs", type=int, default=1)
    parser.add_argument("--page", action="store_true")
    options = parser.parse_args()
    if not options.page:
        for name in (*NAMES, *(GPU if torch.cuda.is_available() else ())):
            print(f"-- {name}", flush=True)
            measure(name, options.runs)
    summary = write_pages()
    print("\n".join(table()[0]))
    print(summary)


if __name__ == "__main__":
    main()
