"""The picture of a search: hold-out accuracy against the strength of the noise."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from smoothout.report.paper.figures import COLOURS, WIDTHS, logarithmic, look, make_figure, style, write_figure

#: Strength, hold-out accuracy in percent, and whether the trial ended early.
Point = tuple[float, float, bool]


def draw_strengths(found: Mapping[str, Sequence[Point]], none: float, stem: Path) -> list[Path]:
    """Draw ``stem.png`` and ``stem.pdf``: a point per trial, and a level for the best one without noise.

    Args:
        found: The trials of each kind of noise.
        none: The best accuracy without noise.
        stem: Path without a suffix.
    """
    with style():
        figure = make_figure(WIDTHS[2] * 0.75, 3.2)
        axes = figure.subplots()
        for index, (name, trials) in enumerate(found.items()):
            for pruned, marker in ((False, look(index + 1).marker), (True, "x")):
                points = [(strength, score) for strength, score, ended in trials if ended is pruned]
                if points:
                    label = f"{name}, ended early" if pruned else name
                    axes.plot(*zip(*points, strict=True), marker, color=look(index + 1).colour, label=label)
        axes.axhline(none, color=COLOURS[0], linestyle="--", label="no noise, its best")
        axes.set(xlabel="strength", ylabel="hold-out accuracy (%)")
        logarithmic(axes, "x")
        axes.legend()
        return write_figure(figure, stem)
