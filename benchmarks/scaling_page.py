"""The tables of docs/scaling.md, made of results."""

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from scaling_model import (
    ASSUMED,
    BATCH,
    GHOST,
    PASSES,
    PUBLISHED,
    TRANSFORMER,
    WAYS,
    Fit,
    block_seconds,
    fit,
    predicted_here,
    resnet50,
    resnet50_seconds,
    transformer_seconds,
)

HERE = Path(__file__).parent
RESULTS, GPU = HERE / "results" / "scaling.json", HERE / "results" / "gpu.json"
PAGE = HERE.parent / "docs" / "scaling.md"
FROM, TO = "<!-- written by benchmarks/scaling.py -->\n", "<!-- up to here -->\n"
GPUS = (1, 8, 64, 1024)
TOKENS = (8192, 1024)
Row = Sequence[object]


def table(head: Row, rows: Sequence[Row]) -> Iterator[str]:
    """Lines of a table."""
    yield f"| {' | '.join(map(str, head))} |"
    yield "|---" * len(head) + "|"
    for row in rows:
        yield f"| {' | '.join(map(str, row))} |"
    yield ""


def milliseconds(seconds: float) -> str:
    """Three digits."""
    value = 1000 * seconds
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def fits(found: dict[str, Any]) -> dict[int, Fit]:
    """A link for each number of processes."""
    rows = found["all_reduce"]
    counts = sorted({row["processes"] for row in rows})
    return {p: fit([(p, row["bytes"], row["seconds"]) for row in rows if row["processes"] == p]) for p in counts}


def shared(processes: int, cores: int) -> str:
    """A number of processes, marked where they take turns."""
    return f"{processes}, oversubscribed" if processes > cores else str(processes)


# -- measured here -----------------------------------------------------------------------------------------


def of_links(found: dict[str, Any], cores: int) -> Iterator[str]:
    """All-reduces and the links that explain them."""
    made = fits(found)
    sizes = sorted({row["bytes"] for row in found["all_reduce"]})
    seconds = {(row["processes"], row["bytes"]): row["seconds"] for row in found["all_reduce"]}
    head = ["all-reduce, ms, over processes", *(f"{size // 1024:,} KB" for size in sizes)]
    yield from table(head, [[shared(p, cores), *(milliseconds(seconds[p, size]) for size in sizes)] for p in made])
    head = ("processes", "latency L, us", "bandwidth B, GB/s", "typical deviation, %", "largest, %")
    yield from table(head, [_of_fit(shared(p, cores), each) for p, each in made.items()])


def _of_fit(name: str, found: Fit) -> Row:
    link = found.link
    return (name, f"{1e6 * link.latency:.0f}", f"{link.bandwidth / 1e9:.2f}", f"{100 * found.typical:.0f}", f"{100 * found.worst:.0f}")  # fmt: skip  # noqa: E501


def of_updates(found: dict[str, Any], cores: int) -> Iterator[str]:
    """Strong and weak scaling."""
    head = ("network", "scaling", "ghost batches", "processes", "ms an update", "with noise", "times one process", "the same with noise", "noise, ms a process")  # fmt: skip  # noqa: E501
    rows = []
    for name, network in found["networks"].items():
        for kind in ("strong", "weak"):
            for row in sorted(network["updates"], key=lambda row: row["processes"]):
                if kind in row:
                    cells = [name, kind, row["ghosts"], shared(row["processes"], cores)]
                    cells += [milliseconds(row["plain"]), milliseconds(row["noisy"])]
                    cells += [f"{row[kind][arm]['median']:.2f}" for arm in ("plain", "noisy")]
                    rows.append([*cells, milliseconds(row["noise"])])
    yield from table(head, rows)
    head = ("updates side by side that tell each other nothing, times one alone", *found["networks"])
    counts = {p: None for network in found["networks"].values() for p in network["side by side"]}
    rows = [
        [shared(int(p), cores), *(f"{each['side by side'][p]:.2f}" for each in found["networks"].values())]
        for p in counts
    ]
    yield from table(head, rows)


def of_shards(found: dict[str, Any], cores: int) -> Iterator[str]:
    """Blocks on sharded weights."""
    sharded = found["sharded"]
    if "not measured" in sharded:
        yield from [f"Blocks on sharded weights: not measured ({sharded['not measured']})", ""]
        return
    head = (f"block on {sharded['weights']:,} weights, sharded", "processes", "ms a process", "times one process")
    rows = []
    for row in sharded["blocks"]:
        times = f"{row['times one process']['median']:.2f}"
        rows.append((row["kind"], shared(row["processes"], cores), milliseconds(row["seconds"]), times))
    yield from table(head, rows)


def of_model(found: dict[str, Any], cores: int) -> Iterator[str]:
    """The model beside what was measured."""
    links = {processes: each.link for processes, each in fits(found).items()}
    rows = []
    for name, network in found["networks"].items():
        for row in predicted_here(network, links):
            ratio = row["predicted"] / row["measured"]
            cells = [name, row["ghosts"], shared(row["processes"], cores), "yes" if row["noise"] else "no"]
            rows.append([*cells, milliseconds(row["measured"]), milliseconds(row["predicted"]), f"{ratio:.2f}"])
    yield from table(
        ("network", "ghost batches", "processes", "noise", "measured, ms", "model, ms", "model / measured"), rows
    )


# -- GPUs --------------------------------------------------------------------------------------------------


def of_inputs(gpu: dict[str, Any]) -> Iterator[str]:
    """What goes into the model, by kind."""
    update = resnet50(gpu, 1, noise=True)
    least, weight, tensor = block_seconds(gpu)
    where = "measured on one H100 (`benchmarks/results/gpu.json`)"
    block = f"{1e3 * least:.2f} ms + {1e12 * weight:.1f} ps a weight + {1e6 * tensor:.1f} us a tensor"
    rows: list[Row] = [
        (where, f"{milliseconds(update.ghost)} ms", f"ResNet-50, both passes of {GHOST} images at 224 in bfloat16"),
        (where, f"{milliseconds(update.noise)} ms", "its noise"),
        (where, block, "a block: copy, noise, restore"),
    ]
    rows += [(f"published: {source}", f"{value:.4g}", unit) for value, unit, source in PUBLISHED.values()]
    rows += [("assumed", value, what) for value, what in ASSUMED.values()]
    yield from table(("input", "value", "of"), rows)


def of_resnet(gpu: dict[str, Any]) -> Iterator[str]:
    """Data parallel."""
    head = ("ResNet-50", "GPUs", "images an update", "ms an update", "with noise", "noise, %", "efficiency with noise")
    rows = []
    for kind, pieces_of in (("strong", lambda _: BATCH // GHOST), ("weak", lambda gpus: PASSES * gpus)):
        for gpus in GPUS:
            pieces = pieces_of(gpus)
            plain, noisy = (resnet50_seconds(gpu, gpus, pieces, noise) for noise in (False, True))
            alone = resnet50_seconds(gpu, 1, pieces, True)
            cells = [f"{kind} scaling", gpus, f"{pieces * GHOST:,}", milliseconds(plain), milliseconds(noisy)]
            rows.append([*cells, f"{100 * (noisy / plain - 1):.1f}", f"{alone / gpus / noisy:.2f}"])
    yield from table(head, rows)


def of_transformer(gpu: dict[str, Any]) -> Iterator[str]:
    """Sharded."""
    weights = TRANSFORMER["weights"] / 1e9
    for tokens in TOKENS:
        title = f"transformer of {weights:.1f} billion weights, {tokens:,} tokens a GPU and ghost batch; ms an update"
        head = (title, *(f"{gpus:,} GPUs" for gpus in GPUS[1:]))
        rows = [
            [name, *(milliseconds(transformer_seconds(gpu, gpus, tokens, way)) for gpus in GPUS[1:])]
            for name, way in WAYS.items()
        ]
        yield from table(head, rows)


def lines() -> list[str]:
    """Of the page's written part."""
    found, gpu = json.loads(RESULTS.read_text()), json.loads(GPU.read_text())
    where = found["environment"]
    cores = where["cores"]
    made = [
        f"### Measured here: {cores} cores, gloo, one thread a process",
        "",
        f"With torch {where['torch']}, {where['instructions']}; medians over {found['rounds']} rounds, of the slowest "
        f"process. More processes than the {cores} cores take turns (oversubscribed). Load average before it began: "
        f"{found['load before']:.1f}; above about 0.5 other work took part of the cores, and ratios below mean little.",
        "",
    ]
    for part in (of_links, of_updates, of_shards, of_model):
        made += part(found, cores)
    made += ["### The model's inputs for GPUs", "", *of_inputs(gpu), "### What it predicts for GPUs", ""]
    return [*made, *of_resnet(gpu), *of_transformer(gpu)]


def write() -> None:
    """Put the lines between the marks of the page."""
    before, rest = PAGE.read_text(encoding="utf-8").split(FROM)
    PAGE.write_text(f"{before}{FROM}{chr(10).join(lines())}{TO}{rest.split(TO, 1)[1]}", encoding="utf-8")
