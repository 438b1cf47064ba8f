"""The figures of docs/evidence.md."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.ticker import NullFormatter, ScalarFormatter

from smoothout.intervals import Estimate
from smoothout.report.paper.figures import COLOURS, make_figure

FIGURES = Path(__file__).parents[1] / "docs" / "figures"


def draw_pair(name: str, gains: Mapping[str, Estimate], cost: Mapping[str, tuple[float, float, float]]) -> Path:
    """Differences to the large batch, and accuracy against what it cost.

    Args:
        name: Of the pair.
        gains: Paired difference in test accuracy, by arm.
        cost: Passes over the samples, seconds and mean test accuracy, by arm.
    """
    figure = make_figure(11.5, 0.3 * len(cost) + 1.6)
    left, passes, seconds = figure.subplots(1, 3, width_ratios=(2, 1, 1))
    _intervals(left, gains)
    left.set(xlabel="points over the tuned large batch (95 % interval)", title=name)
    for axes, index, label in ((passes, 0, "passes over the samples"), (seconds, 1, "seconds")):
        for number, (arm, found) in enumerate(cost.items()):
            marker = "osD^v<>PX*hp8"[number % 13]
            axes.plot(found[index], found[2], marker, color=COLOURS[number % len(COLOURS)], label=arm)
        axes.set(xscale="log", xlabel=label, ylabel="test accuracy (%)")
        axes.xaxis.set_major_formatter(ScalarFormatter())
        axes.xaxis.set_minor_formatter(NullFormatter())
        axes.grid(alpha=0.3)
    seconds.legend(frameon=False, fontsize=7, loc="center left", bbox_to_anchor=(1, 0.5))
    return write(figure, f"pair-{name}")


def draw_gains(name: str, gains: Mapping[str, Estimate], label: str) -> Path:
    """Differences with their intervals."""
    figure = make_figure(7, 0.27 * len(gains) + 0.9)
    axes = figure.subplots()
    _intervals(axes, gains)
    axes.set(xlabel=label)
    return write(figure, name)


def draw_ranks(name: str, agreement: Mapping[str, Mapping[str, float]]) -> Path:
    """Rank correlations with their intervals."""
    figure = make_figure(7, 0.27 * len(agreement) + 0.9)
    axes = figure.subplots()
    _intervals(axes, {label: SimpleNamespace(mean=each["rho"], **each) for label, each in agreement.items()})
    axes.set(xlabel="rank correlation with test accuracy (95 % interval)", xlim=(-1, 1))
    return write(figure, name)


def _intervals(axes: Axes, gains: Mapping[str, Any]) -> None:
    """A line for each, named on the left."""
    for place, (arm, gain) in enumerate(reversed(gains.items())):
        axes.plot([gain.low, gain.high], [place, place], color=COLOURS[4])
        axes.plot(gain.mean, place, "o", color=COLOURS[4])
        axes.annotate(arm, (0, place), (-4, 0), textcoords="offset points", xycoords=("axes fraction", "data"),
                      ha="right", va="center", fontsize=8)  # fmt: skip
    axes.axvline(0, color=COLOURS[0], linewidth=0.8)
    axes.set(yticks=[], ylim=(-0.6, len(gains) - 0.4))


def draw_strengths(name: str, strengths: Sequence[float], curves: Mapping[str, Sequence[Estimate]]) -> Path:
    """Accuracy against strength."""
    figure = make_figure(6, 3.6)
    axes = figure.subplots()
    for colour, (split, found) in zip(COLOURS[1:], curves.items(), strict=False):
        axes.errorbar(
            strengths, [e.mean for e in found], [e.half_width for e in found], label=split, color=colour, capsize=2
        )
    axes.set(xlabel="strength a", ylabel="accuracy (%)")
    axes.grid(alpha=0.3)
    axes.legend(frameon=False)
    return write(figure, name)


def write(figure: object, name: str) -> Path:
    """As SVG, the same bytes each time."""
    path = FIGURES / f"{name}.svg"
    path.parent.mkdir(exist_ok=True)
    with mpl.rc_context({"svg.hashsalt": name, "svg.fonttype": "none"}):
        figure.savefig(path, metadata={"Date": None})  # type: ignore[attr-defined]
    return path
