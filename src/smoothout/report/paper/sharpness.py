"""Sharpness of several arms: curves against the strength of the noise, and all other measures side by side."""

import itertools
import math
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from smoothout.report.paper.figures import (
    LINE,
    SMALL,
    WIDTHS,
    Look,
    Picture,
    add_legend,
    fit,
    key,
    lines_of,
    logarithmic,
    look,
    make_figure,
    name_rows,
    panels,
    stack,
)
from smoothout.report.record import MeasureShown, Value
from smoothout.report.sources import distinct

if TYPE_CHECKING:
    from matplotlib.axes import Axes

#: Strength or place, value, and the ends of its interval.
Point = tuple[float, float, float | None, float | None]


def pictures(arms: Sequence[str], measures: Sequence[MeasureShown], width: float) -> Iterator[Picture]:
    """Curves of noise, and dots of all other measures, where there are any.

    Args:
        arms: Names, in the order that gives arms their looks.
        measures: Of them.
        width: Of the figures, in inches.
    """
    yield from _noise(arms, [each for each in measures if each.curve is not None and _known(each)], width)
    yield from _others(arms, [each for each in measures if each.curve is None and each.values], width)


def errorbars(axes: "Axes", points: Sequence[Point], how: Look) -> None:
    """A curve against the strength."""
    xs, ys, lows, highs = zip(*points, strict=True)
    down = [0.0 if low is None else y - low for y, low in zip(ys, lows, strict=True)]
    up = [0.0 if high is None else high - y for y, high in zip(ys, highs, strict=True)]
    axes.errorbar(xs, ys, (down, up), color=how.colour, linestyle=how.dash, marker=how.marker)


def _noise(arms: Sequence[str], measures: Sequence[MeasureShown], width: float) -> Iterator[Picture]:
    curves = distinct((each.curve, each.split) for each in measures)
    if not curves:
        return
    columns = min(len(curves), 3 if width > WIDTHS[1] else 1)
    titles = [fit(title, 0.75 * width / columns) for title in _titles([(str(c), split) for c, split in curves])]
    height = 1.7 + max(map(lines_of, titles)) * LINE
    figure = make_figure(width, height * -(-len(curves) // columns))
    shown = []
    for axes, curve, title in zip(panels(figure, len(curves), columns), curves, titles, strict=True):
        some = [each for each in measures if (each.curve, each.split) == curve]
        for index, arm in enumerate(arms):
            points = sorted(_points(some, arm))
            if points:
                errorbars(axes, points, look(index))
                shown.append(index)
        axes.set_title(title, fontsize=SMALL)
        axes.set(xlabel="strength a", ylabel="rise of the loss (nats)")
        logarithmic(axes, "x")
        _tick(axes, sorted({each.strength for each in some if each.strength is not None}))
        if all(value.value is None or value.value > 0 for each in some for value in each.values):
            logarithmic(axes, "y")
    indices = sorted(set(shown))
    add_legend(figure, [key(look(index), arms[index]) for index in indices], [arms[index] for index in indices])
    yield Picture("noise", figure, f"Rise of the loss under noise, on {_splits(measures)}; {_bars(measures)}")


def _tick(axes: "Axes", strengths: Sequence[float]) -> None:
    """The strengths themselves where there is room for them."""
    room = (strengths[-1] / strengths[0]) ** (1 / 6) if strengths[0] > 0 else math.inf
    if len(strengths) == 1 or all(high / low >= room for low, high in itertools.pairwise(strengths)):
        axes.set_xticks(strengths, [f"{strength:g}" for strength in strengths], minor=False)
        axes.set_xticks([], minor=True)


def _titles(named: Sequence[tuple[str, str]]) -> list[str]:
    """Names, with their samples where these differ."""
    return [name if len({split for _, split in named}) == 1 else f"{name}; {split}" for name, split in named]


def _splits(measures: Sequence[MeasureShown]) -> str:
    return " or ".join(distinct(each.split for each in measures))


def _points(measures: Sequence[MeasureShown], arm: str) -> Iterator[Point]:
    for each in measures:
        for value in each.values:
            if value.arm == arm and value.value is not None and each.strength is not None:
                yield each.strength, value.value, value.low, value.high


def _known(measure: MeasureShown) -> bool:
    return any(value.value is not None for value in measure.values)


def _others(arms: Sequence[str], measures: Sequence[MeasureShown], width: float) -> Iterator[Picture]:
    """A panel for each measure, a row for each arm."""
    if not measures:
        return
    measured = {value.arm for each in measures for value in each.values}
    shown = [(index, arm) for index, arm in enumerate(arms) if arm in measured]
    names = [fit(arm, 0.27 * width) for _, arm in shown]
    columns = min(len(measures), 4 if width > WIDTHS[1] else 2)
    titles = [fit(title, 0.62 * width / columns) for title in _titles([(each.name, each.split) for each in measures])]
    height = (stack(names)[1] + max(map(lines_of, titles))) * LINE + 0.3
    figure = make_figure(width, height * -(-len(measures) // columns))
    for axes, measure, title in zip(panels(figure, len(measures), columns, sharey=True), measures, titles, strict=True):
        for place, (index, arm) in zip(name_rows(axes, names), shown, strict=True):
            value = next((each for each in measure.values if each.arm == arm), None)
            if value is not None:
                _dot(axes, value, place, look(index))
        axes.set_title(title, fontsize=SMALL)
        axes.locator_params(axis="x", nbins=3)
        axes.margins(x=0.1)
        if all((value.low if value.low is not None else value.value or 0.0) >= 0 for value in measure.values):
            axes.set_xlim(left=0)
    doubts = distinct(
        f"{measure.name}, {value.arm}: {doubt}"
        for measure in measures
        for value in measure.values
        for doubt in value.doubts
    )
    hollow = f" Hollow dots are doubtful: {'; '.join(doubts)}." if doubts else ""
    yield Picture("sharpness", figure, f"Measures of sharpness, on {_splits(measures)}; {_bars(measures)}{hollow}")


def _dot(axes: "Axes", value: Value, place: float, how: Look) -> None:
    if value.value is None:
        axes.text(0.03, place, "not finite", transform=axes.get_yaxis_transform(), va="center")
        return
    reach = None
    if value.low is not None and value.high is not None:
        reach = [[value.value - value.low], [value.high - value.value]]
    face = "white" if value.doubts else how.colour
    axes.errorbar(value.value, place, xerr=reach, fmt=how.marker, color=how.colour, markerfacecolor=face, markersize=4)


def _bars(measures: Sequence[MeasureShown]) -> str:
    """What error bars are."""
    values = [value for each in measures for value in each.values]
    counts = sorted({len(value.seeds) for value in values})
    alone = ", of one seed over draws or batches" if 1 in counts else ""
    none = "; where no error is known there is no bar" if any(value.low is None for value in values) else ""
    return f"bars are 95 % intervals over {' or '.join(map(str, counts))} seed(s){alone}{none}."
