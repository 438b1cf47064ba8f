"""Test accuracies of arms, and their paired differences, as bars with 95 % intervals."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

from smoothout.report.paper.figures import LINE, Picture, fit, lines_of, look, make_figure, name_rows, stack
from smoothout.report.record import ArmShown, Interval

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

#: Share of the width for names.
_NAMES = 0.36
#: Thickness of a bar, in lines.
_BAR = 1.2
#: Filled for a certain difference, hatched on white for one that is not.
CERTAIN, OPEN = "#0072B2", "#FFFFFF"
HATCH = "////"


def pictures(arms: Sequence[ArmShown], width: float) -> Iterator[Picture]:
    """Accuracies where a run is finished, and differences where two arms share a seed."""
    accuracies = {arm.name: arm.test for arm in arms if arm.test.mean is not None}
    if accuracies:
        colours = [look(index).colour for index, arm in enumerate(arms) if arm.name in accuracies]
        figure, axes, places = _canvas(accuracies, width)
        means = [value.mean or 0.0 for value in accuracies.values()]
        axes.barh(places, means, color=colours, alpha=0.75, height=_BAR)
        _intervals(axes, places, accuracies.values())
        _write_beside(axes, places, [_number(value) for value in accuracies.values()])
        _label(axes, "test accuracy after the last epoch (%)", width)
        axes.set_xlim(0, 100)
        yield Picture("accuracy", figure, f"Means and {_of(accuracies)}.")
    compared = [arm for arm in arms if arm.difference is not None and arm.difference.mean is not None]
    others = {arm.against for arm in compared}
    differences = {
        arm.name if len(others) == 1 else f"{arm.name} \N{MINUS SIGN} {arm.against}": arm.difference
        for arm in compared
        if arm.difference is not None
    }
    if differences:
        to = f" to {next(iter(others))}" if len(others) == 1 else ""
        figure, axes, places = _canvas(differences, width)
        for place, value in zip(places, differences.values(), strict=True):
            face, hatch = (CERTAIN, "") if value.certain else (OPEN, HATCH)
            axes.barh(place, value.mean or 0.0, color=face, edgecolor=CERTAIN, hatch=hatch, height=_BAR, linewidth=0.6)
        _intervals(axes, places, differences.values())
        axes.axvline(0, color="black", linewidth=0.8)
        _write_beside(axes, places, [_number(value, "+") for value in differences.values()])
        _label(axes, f"difference{to} in test accuracy (points)", width)
        axes.margins(x=0.08)
        yield Picture(
            "differences",
            figure,
            f"Differences paired by seed, and {_of(differences)}. Filled: three seeds or more, and the interval leaves "
            f"out 0, so the difference is certain; hatched: it is not certain.",
        )


def _canvas(rows: Mapping[str, Interval], width: float) -> "tuple[Figure, Axes, list[float]]":
    """A figure with a row for each name, the first on top."""
    names = [fit(name, _NAMES * width) for name in rows]
    figure = make_figure(width, stack(names)[1] * LINE + 0.35)
    axes = figure.subplots()
    axes.grid(visible=False, axis="y")
    return figure, axes, name_rows(axes, names)


def _label(axes: "Axes", text: str, width: float) -> None:
    """What the bars count; the figure grows by its lines."""
    label = fit(text, 0.5 * width)
    axes.set_xlabel(label)
    figure = axes.get_figure(root=True)
    assert figure is not None
    figure.set_figheight(figure.get_figheight() + lines_of(label) * LINE)


def _intervals(axes: "Axes", places: Sequence[float], values: Iterable[Interval]) -> None:
    for place, value in zip(places, values, strict=True):
        if value.mean is not None and value.low is not None and value.high is not None:
            axes.errorbar(
                value.mean, place, xerr=[[value.mean - value.low], [value.high - value.mean]], color="black", fmt="none"
            )


def _write_beside(axes: "Axes", places: Sequence[float], texts: Sequence[str]) -> None:
    """Numbers at the right of the rows."""
    right = axes.secondary_yaxis("right")
    right.set_yticks(places, texts)
    right.tick_params(axis="y", length=0)
    right.spines["right"].set_visible(False)


def _number(value: Interval, sign: str = "") -> str:
    """The mean, and half the interval where there is one.

    Example:
        >>> _number(Interval(76.5, 75.9, 77.1, 5)), _number(Interval(1.5, None, None, 1), "+")
        ('76.50 ± 0.60', '+1.50')
    """
    assert value.mean is not None
    reach = "" if value.low is None or value.high is None else f" ± {(value.high - value.low) / 2:.2f}"
    return f"{value.mean:{sign}.2f}{reach}".replace("-", "\N{MINUS SIGN}")


def _of(rows: Mapping[str, Interval]) -> str:
    counts = sorted({value.count for value in rows.values()})
    alone = "; one seed has no interval" if 1 in counts else ""
    return f"95 % intervals over seeds ({' or '.join(map(str, counts))} of them{alone})"
