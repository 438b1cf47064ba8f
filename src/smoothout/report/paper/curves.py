"""Training curves of several arms, mean over seeds with the range of the seeds as a band."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path

from smoothout.report.paper.figures import COLOURS, make_figure, write_figure
from smoothout.results.runs import EpochMetrics

PANELS = (
    ("train_loss", "training loss, as seen in training", "log"),
    ("test_loss", "test loss", "log"),
    ("test_error1", "test error (%)", "linear"),
)


def draw_curves(curves: Mapping[str, Sequence[Sequence[EpochMetrics]]], stem: Path) -> list[Path]:
    """Draw ``stem.png`` and ``stem.pdf``: a panel per quantity, a line per arm.

    Args:
        curves: For each arm the rows of each of its runs.
        stem: Path without a suffix.
    """
    figure = make_figure(13, 4.6)
    for axes, (name, label, scale) in zip(figure.subplots(1, len(PANELS)), PANELS, strict=True):
        for index, (arm, runs) in enumerate(curves.items()):
            _band(axes, runs, name, COLOURS[index % len(COLOURS)], ("-", "--")[index // len(COLOURS) % 2], arm)
        axes.set(xlabel="epoch", ylabel=label, yscale=scale)
        axes.grid(alpha=0.3)
    counts = sorted({len(runs) for runs in curves.values()})
    figure.suptitle(
        f"mean over {' or '.join(map(str, counts))} seeds; band: from the lowest to the highest", fontsize=10
    )
    handles, labels = axes.get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=4, frameon=False)
    return write_figure(figure, stem)


def _band(axes, runs, name: str, colour: str, style: str, label: str) -> None:  # type: ignore[no-untyped-def]
    """Mean over runs of the epochs that all of them evaluated, and their range."""
    columns = [[getattr(row, name) for row in rows] for rows in zip(*runs, strict=False)]
    kept = [(epoch, column) for epoch, column in enumerate(columns, 1) if all(map(math.isfinite, column))]
    epochs, values = [epoch for epoch, _ in kept], [column for _, column in kept]
    axes.plot(epochs, [sum(column) / len(column) for column in values], style, color=colour, label=label)
    axes.fill_between(epochs, [min(c) for c in values], [max(c) for c in values], color=colour, alpha=0.15, linewidth=0)
