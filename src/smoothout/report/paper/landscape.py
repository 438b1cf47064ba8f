"""Pictures of the loss along a line and over a plane."""

import math
import textwrap
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from smoothout.report.paper.figures import COLOURS, make_figure, write_figure
from smoothout.results.landscape import Line, Mark, Plane

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.patheffects import AbstractPathEffect

_SPLITS = (COLOURS[4], COLOURS[5], COLOURS[3])  # blue, vermilion, green
_LEVELS = 24


def draw_line(lines: Mapping[str, Line], stem: Path) -> list[Path]:
    """Draw ``stem.png`` and ``stem.pdf``: loss (log axis, solid) and accuracy (second axis, dashed) along a line.

    Known points have a dotted line each, and a dot at their own loss, which may lie off the curve. Losses that are not
    finite leave a gap, and a cross at the top; points that are not measured leave a gap alone.

    Args:
        lines: By split, such as "train" and "test"; along the same axes.
        stem: Path without a suffix.

    Raises:
        ValueError: If there is no finite loss to draw.
    """
    _refuse_nothing(loss for line in lines.values() for loss in line.losses)
    figure = make_figure(7.2, 4.6)
    axes = figure.subplots()
    accuracies = axes.twinx()
    positive = all(loss > 0 for line in lines.values() for loss in _numbers(line))
    axes.set_yscale("log" if positive else "linear")
    for (split, line), colour in zip(lines.items(), _SPLITS, strict=False):
        losses = [loss if math.isfinite(loss) else math.nan for loss in line.losses]
        axes.plot(line.positions, losses, "-", color=colour, label=f"{split} loss")
        axes.plot(
            [mark.coordinates[0] for mark in line.marks], [mark.loss for mark in line.marks], "o", color=colour, ms=4
        )
        accuracies.plot(line.positions, [100 - error for error in line.errors1], "--", color=colour, lw=1.2)
        axes.plot([], [], "--", color=colour, lw=1.2, label=f"{split} accuracy")
        wild = [at for at, loss in _finished(line) if not math.isfinite(loss)]
        if wild:
            axes.plot(wild, [0.98] * len(wild), "x", color=colour, transform=axes.get_xaxis_transform(), ms=5)
            axes.plot([], [], "x", color=colour, ms=5, label=f"{split} loss not finite")
    first = next(iter(lines.values()))
    _name_marks(axes, first.marks)
    axes.set(xlabel=_alpha(first), ylabel="loss")
    axes.grid(alpha=0.3)
    _accuracy_axis(accuracies, lines.values())
    axes.set_title(_title(first, 100), fontsize=9, pad=18)
    figure.legend(loc="outside lower center", ncols=4, frameon=False, fontsize=9)
    return write_figure(figure, stem)


def draw_plane(plane: Plane, stem: Path) -> list[Path]:
    """Draw ``stem.png`` and ``stem.pdf``: filled contours of the loss, by its logarithm if all losses are above 0.

    Both axes have the same scale in weight space. What is not measured or not finite stays grey. Known points are
    named.

    Args:
        plane: At least 2 x 2 points.
        stem: Path without a suffix.

    Raises:
        ValueError: For a smaller grid, or one without a finite loss.
    """
    import numpy as np

    if min(len(plane.xs), len(plane.ys)) < 2:
        raise ValueError(
            f"the plane has {len(plane.xs)} x {len(plane.ys)} points; expected at least 2 x 2 to draw contours. "
            f"Measure more, or draw a line."
        )
    _refuse_nothing(loss for row in plane.losses for loss in row)
    losses = np.ma.masked_invalid(np.array(plane.losses))
    positive = bool((losses > 0).all())
    heights = np.ma.log10(losses) if positive else losses
    low, high = float(heights.min()), float(heights.max())
    if high - low < 1e-9:
        low, high = low - 0.5, high + 0.5  # flat
    across, up = plane.lengths
    shape = (plane.ys[-1] - plane.ys[0]) * up / ((plane.xs[-1] - plane.xs[0]) * across)
    figure = make_figure(6.4, min(9.0, max(2.6, 1.4 + 4.8 * shape)), "compressed")
    axes = figure.subplots()
    axes.set_facecolor("#CCCCCC")
    levels = np.linspace(low, high, _LEVELS + 1)
    filled = axes.contourf(plane.xs, plane.ys, heights, levels=levels, cmap="viridis")
    axes.contour(plane.xs, plane.ys, heights, levels=levels[::3], colors="white", linewidths=0.4, linestyles="solid")
    axes.set_aspect(up / across)
    for mark in plane.marks:
        x, y = mark.coordinates
        axes.plot(x, y, "o", color="white", mec="black", ms=6, clip_on=False)
        axes.annotate(mark.name, (x, y), (6, 5), textcoords="offset points", color="white", path_effects=_outline())
    bar = figure.colorbar(filled, ax=axes, label="loss")
    ticks = np.linspace(low, high, 7).tolist()
    bar.set_ticks(ticks, labels=[f"{10**tick if positive else tick:.3g}" for tick in ticks])
    axes.set(xlabel=_axis(plane, 0), ylabel=_axis(plane, 1))
    axes.set_title(_title(plane, 75), fontsize=8)
    return write_figure(figure, stem)


def _numbers(line: Line) -> list[float]:
    """All finite losses of the curve and of the known points."""
    return [loss for loss in (*line.losses, *(mark.loss for mark in line.marks)) if math.isfinite(loss)]


def _finished(line: Line) -> list[tuple[float, float]]:
    rows = zip(line.positions, line.losses, line.finished, strict=True)
    return [(at, loss) for at, loss, finished in rows if finished]


def _refuse_nothing(losses: Iterable[float]) -> None:
    if not any(map(math.isfinite, losses)):
        raise ValueError("no loss is finite; expected some to draw. Measure first, or look at the numbers.")


def _name_marks(axes: "Axes", marks: Sequence[Mark]) -> None:
    for mark in marks:
        [at] = mark.coordinates
        axes.axvline(at, color="black", lw=0.8, ls=":")
        axes.annotate(
            mark.name, (at, 1), (0, 3), xycoords=("data", "axes fraction"), textcoords="offset points", ha="center"
        )


def _accuracy_axis(axes: "Axes", lines: Iterable[Line]) -> None:
    """The second axis, unless targets are no classes."""
    if all(math.isnan(error) for line in lines for error in line.errors1):
        axes.set_visible(False)
    else:
        axes.set(ylabel="accuracy (%)", ylim=(0, 100))


def _alpha(line: Line) -> str:
    shape = "" if line.mode == "linear" else r", $(1 - \cos \pi\alpha)/2$"
    return rf"$\alpha${shape} (1 is {line.lengths[0]:.3g} in weight space)"


def _axis(plane: Plane, index: int) -> str:
    if plane.lengths[index] == 1:
        return f"distance along axis {index + 1}"
    return f"axis {index + 1} (1 is {plane.lengths[index]:.3g} in weight space)"


def _title(record: Line | Plane, width: int) -> str:
    facts = f"BatchNorm: {record.bn}; {record.samples:,} samples; {record.weights:,} weights"
    if isinstance(record, Line) and not math.isnan(record.barrier):
        facts += f"; barrier {record.barrier:.3g}"
    lines = [record.axes, facts, *(f"(!) {doubt}" for doubt in record.doubts)]
    return "\n".join(textwrap.fill(line, width) for line in lines)


def _outline() -> "list[AbstractPathEffect]":
    from matplotlib.patheffects import withStroke

    return [withStroke(linewidth=2, foreground="black")]
