"""Pictures of the loss along a line and over planes."""

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from smoothout.report import landscapes
from smoothout.report.paper.figures import (
    COLOURS,
    LINE,
    SMALL,
    WIDTHS,
    Picture,
    add_legend,
    add_title,
    fit,
    lines_of,
    logarithmic,
    make_figure,
    panels,
    short,
    style,
    write_figure,
)
from smoothout.report.record import LineShown, MarkShown, PlaneShown
from smoothout.report.sources import distinct
from smoothout.results.comparisons import slug
from smoothout.results.landscape import Line, Plane

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.colors import Normalize
    from matplotlib.contour import ContourSet
    from matplotlib.patheffects import AbstractPathEffect

#: Colour and marker of each split: blue, vermilion, green.
_SPLITS = ((COLOURS[4], "o"), (COLOURS[5], "s"), (COLOURS[3], "^"))
_LEVELS = 24
_GREY = "#CCCCCC"


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
    shown = [landscapes.line("", split, line) for split, line in lines.items()]
    _refuse_nothing(loss for line in shown for loss in line.losses)
    with style():
        picture = _line("", shown, WIDTHS[2])
        add_title(picture.figure, picture.caption)
        return write_figure(picture.figure, stem)


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
    if min(len(plane.xs), len(plane.ys)) < 2:
        raise ValueError(
            f"the plane has {len(plane.xs)} x {len(plane.ys)} points; expected at least 2 x 2 to draw contours. "
            f"Measure more, or draw a line."
        )
    shown = landscapes.plane("", "", plane)
    _refuse_nothing(loss for row in shown.losses for loss in row)
    with style():
        picture = _planes("", [shown], WIDTHS[2])
        add_title(picture.figure, picture.caption)
        return write_figure(picture.figure, stem)


def _refuse_nothing(losses: Iterable[float | None]) -> None:
    if all(loss is None for loss in losses):
        raise ValueError("no loss is finite; expected some to draw. Measure first, or look at the numbers.")


def pictures(lines: Sequence[LineShown], planes: Sequence[PlaneShown], width: float) -> Iterator[Picture]:
    """A figure for each line, and one for all planes of a split; none for what has no finite loss."""
    titles = distinct(line.title for line in lines if _finite(line.losses))
    for index, title in enumerate(titles, 1):
        some = [line for line in lines if line.title == title]
        yield _line("line" if len(titles) == 1 else f"line-{index}", some, width)
    drawn = [plane for plane in planes if min(len(plane.xs), len(plane.ys)) > 1 and any(map(_finite, plane.losses))]
    splits = distinct(plane.split for plane in drawn)
    for split in splits:
        yield _planes(f"planes-{slug(split)}", [plane for plane in drawn if plane.split == split], width)


def _finite(losses: Iterable[float | None]) -> list[float]:
    return [loss for loss in losses if loss is not None]


# -- lines -------------------------------------------------------------------------------------------------


def _line(name: str, lines: Sequence[LineShown], width: float) -> Picture:
    """One line, for each split its loss and its accuracy."""
    from matplotlib.lines import Line2D

    figure = make_figure(width, 0.22 * width + 1.1)
    axes = figure.subplots()
    accuracies = axes.twinx()
    handles = []
    for line, (colour, marker) in zip(lines, _SPLITS, strict=False):
        axes.plot(line.positions, _gaps(line.losses), "-", color=colour)
        marks = [(mark.coordinates[0], mark.loss) for mark in line.marks if mark.loss is not None]
        axes.plot([at for at, _ in marks], [loss for _, loss in marks], marker, color=colour)
        accuracies.plot(line.positions, _gaps(line.accuracies), "--", color=colour)
        handles.append(Line2D([], [], color=colour, marker=marker, label=f"{line.split} loss"))
        if _finite(line.accuracies):
            handles.append(Line2D([], [], color=colour, linestyle="--", label=f"{line.split} accuracy"))
        if line.wild:
            axes.plot(line.wild, [0.97] * len(line.wild), "x", color=colour, transform=axes.get_xaxis_transform(), ms=5)
            label = f"{line.split} loss not finite"
            handles.append(Line2D([], [], color=colour, marker="x", linestyle="", markersize=5, label=label))
    for mark in lines[0].marks:
        [at] = mark.coordinates
        axes.axvline(at, color="black", lw=0.8, ls=":")
        axes.annotate(
            fit(mark.name, 0.3 * width),
            (at, 1),
            (0, 3),
            xycoords=("data", "axes fraction"),
            textcoords="offset points",
            ha="center",
        )
    axes.set(xlabel=fit(lines[0].axis, 0.7 * width), ylabel="loss (nats)")
    if all(loss > 0 for line in lines for loss in _finite((*line.losses, *(mark.loss for mark in line.marks)))):
        logarithmic(axes, "y")
    if any(_finite(line.accuracies) for line in lines):
        accuracies.set(ylabel="accuracy (%)", ylim=(0, 100))
        accuracies.grid(visible=False)
    else:
        accuracies.set_visible(False)
    add_legend(figure, handles, [str(handle.get_label()) for handle in handles])
    notes = distinct(note for line in lines for note in line.notes)
    return Picture(name, figure, _caption(lines[0].title, lines[0].axis, notes))


def _gaps(values: Sequence[float | None]) -> list[float]:
    return [math.nan if value is None else value for value in values]


def _caption(title: str, axes: str, notes: Iterable[str]) -> str:
    return ". ".join(part for part in (title, axes, "; ".join(notes)) if part) + "."


# -- planes ------------------------------------------------------------------------------------------------


def _planes(name: str, planes: Sequence[PlaneShown], width: float) -> Picture:
    """Contours of planes, all on one colour scale."""
    import numpy as np
    from matplotlib.colors import Normalize

    losses = [loss for plane in planes for row in plane.losses for loss in _finite(row)]
    positive = min(losses) > 0
    low, high = (math.log10(end) if positive else end for end in (min(losses), max(losses)))
    if high - low < 1e-9:
        low, high = low - 0.5, high + 0.5  # flat
    columns = min(len(planes), 4 if width > WIDTHS[1] else 2)
    rows = -(-len(planes) // columns)
    panel = min(0.92 * width / columns, 3.6)
    tallest = max((plane.ys[-1] - plane.ys[0]) / (plane.xs[-1] - plane.xs[0]) for plane in planes)
    titles = [fit(plane.title, 0.75 * panel) for plane in planes]
    words = max(map(lines_of, titles)) * LINE + 0.35
    figure = make_figure(width, rows * (min(2.5, max(0.3, tallest)) * panel + words) + 0.5, "compressed")
    levels = np.linspace(low, high, _LEVELS + 1)
    scale = Normalize(low, high)
    drawn = panels(figure, len(planes), columns)
    for index, (axes, plane, title) in enumerate(zip(drawn, planes, titles, strict=True)):
        filled = _contours(axes, plane, levels.tolist(), scale, positive)
        axes.set_title(title, fontsize=SMALL)
        axes.set(xlabel="along axis 1", ylabel="along axis 2" if index % columns == 0 else "")
    bar = figure.colorbar(filled, ax=drawn, location="bottom", label="loss (nats)", aspect=30, shrink=0.9)
    ticks = np.linspace(low, high, 6).tolist()
    bar.set_ticks(ticks, labels=[short(10**tick if positive else tick) for tick in ticks])
    bar.ax.grid(visible=False)
    figure.draw_without_rendering()
    figure.set_figheight(figure.get_tightbbox().height + 0.08)  # panels are limited by the width
    notes = distinct(note for plane in planes for note in plane.notes)
    return Picture(name, figure, _caption("", f"Distances {planes[0].axes[0]} and {planes[0].axes[1]}", notes))


def _contours(
    axes: "Axes", plane: PlaneShown, levels: Sequence[float], scale: "Normalize", positive: bool
) -> "ContourSet":
    import numpy as np

    losses = np.ma.masked_invalid(np.array([_gaps(row) for row in plane.losses]))
    heights = np.ma.log10(losses) if positive else losses
    axes.set_facecolor(_GREY)
    axes.grid(visible=False)
    filled = axes.contourf(plane.xs, plane.ys, heights, levels=levels, norm=scale, cmap="viridis")
    inside = [level for level in levels[::3] if heights.min() < level < heights.max()]
    if inside:
        axes.contour(plane.xs, plane.ys, heights, levels=inside, colors="white", linewidths=0.4, linestyles="solid")
    axes.set_aspect(1)
    axes.locator_params(nbins=4)
    for mark in plane.marks:
        _name(axes, mark)
    return filled


def _name(axes: "Axes", mark: MarkShown) -> None:
    """A known point, with its name on the side where there is room."""
    x, y = mark.coordinates
    left, right = axes.get_xlim()
    bottom, top = axes.get_ylim()
    across, up = ("right", -4) if x > (left + right) / 2 else ("left", 4), 4 if y < (bottom + top) / 2 else -4
    axes.plot(x, y, "o", color="white", mec="black", ms=4, mew=0.6, clip_on=False)
    axes.annotate(
        mark.name,
        (x, y),
        (across[1], up),
        textcoords="offset points",
        ha=across[0],
        va="bottom" if up > 0 else "top",
        color="white",
        path_effects=_outline(),
    )


def _outline() -> "list[AbstractPathEffect]":
    from matplotlib.patheffects import withStroke

    return [withStroke(linewidth=1.5, foreground="black")]
