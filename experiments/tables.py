"""The tables of docs/evidence.md besides the pairs', from the files in experiments/results."""

import functools
import json
import operator
from pathlib import Path
from typing import Any

import drawing
from paired import by_seed, difference
from provenance import RESULTS
from scipy.stats import t

from smoothout.intervals import Estimate, mean_interval


def read(path: Path) -> Any:
    """A result."""
    return json.loads(path.read_text(encoding="utf-8"))


def signed(estimate: Estimate) -> str:
    """With its interval."""
    return f"{estimate.mean:+.2f} ({estimate.low:+.2f} to {estimate.high:+.2f})"


def brief(value: Any) -> str:
    """Three digits."""
    return f"{value:.3g}" if isinstance(value, float) else str(value)


def earlier() -> list[str]:
    """What earlier searches of a pair came to: none is left out because it was repeated."""
    paths = sorted((RESULTS / "earlier").glob("pairs-*.json"))
    if not paths:
        return []
    arms = ("SmoothOut", "AdaSmoothOut", "auto", "EMA", "small batch", "large batch, regime adaptation")
    lines = [
        "## Earlier searches\n",
        "Test points over the large batch of the same search.\n",
        f"| search | commit | trials | large batch | {' | '.join(arms)} |",
        f"|---|---|---|---|{'---|' * len(arms)}",
    ]
    for path in paths:
        record = read(path)
        own = mean_interval(list(by_seed(record, "large batch", "test_accuracy_last").values()))
        cells = [path.stem.removeprefix("pairs-"), f"`{record['commit'][:10]}`"]
        cells += [str(max(len(arm["trials"]) for arm in record["arms"])), str(own)]
        cells += [signed(difference(record, arm, "large batch")) for arm in arms]
        lines.append(f"| {' | '.join(cells)} |")
    return [*lines, ""]


def fresh() -> list[str]:
    """Where diagnose and tune lead."""
    path = RESULTS / "fresh.json"
    if not path.is_file():
        return []
    record = read(path)
    runs = {name: {run["seed"]: run["test_accuracy_last"] for run in found} for name, found in record["runs"].items()}
    lines = [
        "## A pair the tools were not built on\n",
        f"`{record['command']}`: {', '.join(f'{key} {brief(value)}' for key, value in record['common'].items())}. "
        f"{record['tools']['runs']} training runs by `smoothout diagnose` and `smoothout tune`, "
        f"{record['hand']['runs']} by hand, one setting after another. `diagnose` said: "
        f"{'; '.join(verdict['advice'] for verdict in record['tools']['verdicts'])}; `tune` chose the arm "
        f'"{record["tools"]["chosen"]}".\n',
        "| settings | test | over those by hand | chosen |",
        "|---|---|---|---|",
    ]
    for name, found in runs.items():
        over = mean_interval([found[seed] - runs["by hand"][seed] for seed in found])
        chosen = {key: value for key, value in record["chosen"][name].items() if record["common"].get(key) != value}
        cells = [
            name,
            str(mean_interval(list(found.values()))),
            "" if name == "by hand" else signed(over),
            ", ".join(f"{key} {brief(value)}" for key, value in chosen.items() if key != "seed"),
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return [*lines, ""]


def fresh_in_short() -> list[str]:
    """The same in a sentence."""
    path = RESULTS / "fresh.json"
    if not path.is_file():
        return []
    record = read(path)
    found = {name: {run["seed"]: run["test_accuracy_last"] for run in runs} for name, runs in record["runs"].items()}
    tools, hand = found["diagnose and tune"], found["by hand"]
    over = signed(mean_interval([tools[seed] - hand[seed] for seed in tools]))
    return [
        f"On a pair that the tools were not built on, `diagnose` and `tune` led in {record['tools']['runs']} training "
        f"runs to settings that differ by {over} points from those found by hand in {record['hand']['runs']}."
    ]


def extensions() -> list[str]:
    """What helps beside plain noise."""
    path = RESULTS / "extensions.json"
    if not path.is_file():
        return []
    record = read(path)
    lines = [
        "## Extensions\n",
        f"`{record['command']}`: {', '.join(f'{key} {value}' for key, value in record['common'].items())}; "
        f"{len(record['seeds'])} seeds, paired; strengths chosen by hold-out accuracy on both sides. Passes are "
        f"relative to what it is compared with. A verdict is certain if the interval leaves out 0 even when widened "
        f"for {len(record['rows'])} comparisons (Bonferroni), probable if it does so alone.\n",
        "| extension | chosen | against | passes | test | difference | verdict |",
        "|---|---|---|---|---|---|---|",
    ]
    for row in record["rows"]:
        cells = [row["extension"], row["chosen"], row["against"], f"{row['passes']:g}"]
        found = Estimate(**row["difference"])
        cells += [str(Estimate(**row["test accuracy"])), signed(found), verdict(found, len(record["rows"]))]
        lines.append(f"| {' | '.join(cells)} |")
    return [*lines, ""]


def verdict(found: Estimate, comparisons: int) -> str:
    """In words, of one of several differences."""
    if not found.certain:
        return "no difference seen"
    levels = (0.025 / comparisons, 0.025)
    wider = found.half_width * float(t.isf(levels[0], found.count - 1) / t.isf(levels[1], found.count - 1))
    effect = "helps" if found.mean > 0 else "harms"
    return f"{effect}, {'certain' if abs(found.mean) > wider else 'probable'}"


def auto_target() -> list[str]:
    """Which target the controller should follow."""
    records = [read(path) for name in ("auto_target", "auto_distance") if (path := RESULTS / f"{name}.json").is_file()]
    if not records:
        return []
    rows = [row for record in records for row in record["rows"]]
    networks = list(dict.fromkeys(row["network"] for row in rows))
    accuracy = {(row["network"], row["noise"]): mean_interval(row["holdout_accuracy"]) for row in rows}
    commands = ", ".join(f"`{record['command']}`" for record in records)
    lines = [
        "## Which target for `auto`\n",
        f"{commands}: hold-out accuracy at settings that nobody tuned, seeds {records[0]['seeds']}.\n",
        f"| noise | {' | '.join(networks)} |",
        f"|---|{'---|' * len(networks)}",
    ]
    for noise in dict.fromkeys(row["noise"] for row in rows):
        lines.append(f"| {noise} | {' | '.join(str(accuracy[network, noise]) for network in networks)} |")
    return [*lines, ""]


def keskar() -> list[str]:
    """Which measures agree with accuracy."""
    paths = sorted(RESULTS.glob("keskar-*.json"))
    return [line for path in paths for line in of_network(path.stem.removeprefix("keskar-"), read(path))]


def of_network(name: str, record: Any) -> list[str]:
    """Every measure beside accuracy, by arm, and its rank correlation with it."""
    arms = sorted({run["arm"] for run in record["runs"]}, key=lambda arm: (not arm.startswith("Adam"), arm))
    labels = list(record["agreement"])
    lines = [
        f"## Sharpness and accuracy: {name}\n",
        f"`{record['command']}`: {len(record['runs'])} checkpoints of {len(arms)} arms; means over seeds. Commit "
        f"`{record['commit'][:10]}`, whose result of the pair gave the arms' settings. Rank "
        f"correlation of each measure with test accuracy over all checkpoints, with a 95 % interval by resampling "
        f"arms; -1 would say that the flatter minimum always generalises better. {agreeing(record['agreement'])}\n",
        f"{small_and_large(record)} {PUBLISHED[name]}\n",
        f"| arm | test | train | train loss | {' | '.join(labels)} |",
        f"|---|---|---|---|{'---|' * len(labels)}",
    ]
    for arm in arms:
        values = [f"{mean_of(record, arm, 'measures', label):.3g}" for label in labels]
        cells = [f"{mean_of(record, arm, key):.{digits}g}" for key, digits in COLUMNS]
        lines.append(f"| {arm} | {' | '.join([*cells, *values])} |")
    ranks = [f"{each['rho']:+.2f} ({each['low']:+.2f} to {each['high']:+.2f})" for each in record["agreement"].values()]
    lines += [f"| **rank correlation** | | | | {' | '.join(ranks)} |", ""]
    return [
        *lines,
        f"![Rank correlations](figures/{drawing.draw_ranks(f'keskar-{name}', record['agreement']).name})",
        "",
    ]


def mean_of(record: Any, arm: str, *keys: str) -> float:
    """Over an arm's runs."""
    return average(functools.reduce(operator.getitem, keys, run) for run in record["runs"] if run["arm"] == arm)


def small_and_large(record: Any) -> str:
    """Keskar's comparison."""
    small, large = "Adam, batch 256", "Adam, batch 10 %"
    accuracy, box = (
        [mean_of(record, arm, *keys) for arm in (small, large)]
        for keys in (("test_accuracy_last",), ("measures", "Keskar's box"))
    )
    return (
        f"Adam's batch of 256 against one of 10 %: test accuracy {accuracy[0]:.2f} and {accuracy[1]:.2f} %, Keskar's "
        f"box (5e-4, full space) {box[0]:.3g} and {box[1]:.3g}."
    )


#: Keskar et al. 2016 (arXiv 1609.04836): tables of accuracy, and of sharpness in the full space at 5e-4.
PUBLISHED = {
    "fashion-f1": "Keskar et al. (arXiv 1609.04836) found 98.03 and 97.81 %, 0.61 and 42.9, on MNIST.",
    "cifar10-shallow": "Keskar et al. (arXiv 1609.04836) found 80.04 and 77.26 %, 7.1 and 227.",
}


def agreeing(agreement: Any) -> str:
    """How many measures rank the arms as accuracy does."""
    below, above = (
        sum(sign * each[end] > 0 for each in agreement.values()) for sign, end in ((-1, "high"), (1, "low"))
    )
    return (
        f"Of {len(agreement)} measures {below} {'agrees' if below == 1 else 'agree'} with accuracy, so far as the "
        f"interval leaves out 0, and {above} {'says' if above == 1 else 'say'} the opposite."
    )


COLUMNS = (("test_accuracy_last", 4), ("train_accuracy_last", 4), ("train_loss_last", 3))


def average(values: Any) -> float:
    """Of numbers."""
    found = list(values)
    return sum(found) / len(found)
