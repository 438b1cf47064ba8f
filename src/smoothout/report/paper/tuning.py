"""The picture of a search: hold-out accuracy against the strength of the noise."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from smoothout.report.paper.figures import COLOURS, make_figure, write_figure

#: Strength, hold-out accuracy in percent, and whether the trial ended early.
Point = tuple[float, float, bool]


def draw_strengths(found: Mapping[str, Sequence[Point]], none: float, stem: Path) -> list[Path]:
    """Draw ``stem.png`` and ``stem.pdf``: a point per trial, and a level for the best one without noise.

    Args:
        found: The trials of each kind of noise.
        none: The best accuracy without noise.
        stem: Path without a suffix.
    """
    figure = make_figure(6.4, 4.2)
    axes = figure.subplots()
    for index, (name, trials) in enumerate(found.items()):
        for pruned, marker in ((False, "o"), (True, "x")):
            points = [(strength, score) for strength, score, ended in trials if ended is pruned]
            if points:
                label = f"{name}, ended early" if pruned else name
                axes.plot(*zip(*points, strict=True), marker, color=COLOURS[index + 1], label=label)
    axes.axhline(none, color=COLOURS[0], linestyle="--", label="no noise, its best")
    axes.set(xscale="log", xlabel="strength", ylabel="hold-out accuracy (%)")
    axes.grid(alpha=0.3)
    axes.legend(frameon=False)
    return write_figure(figure, stem)
