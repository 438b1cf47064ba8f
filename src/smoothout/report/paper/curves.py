"""Training curves of several arms, mean over seeds with the range of the seeds as a band."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from smoothout.report.arms import columns_of
from smoothout.report.paper.figures import (
    WIDTHS,
    Picture,
    add_legend,
    add_title,
    key,
    logarithmic,
    look,
    make_figure,
    panels,
    style,
    write_figure,
)
from smoothout.report.record import ArmShown
from smoothout.results.runs import EpochMetrics

if TYPE_CHECKING:
    from matplotlib.axes import Axes

#: Columns of ``metrics.csv``, and how they are called; of errors, accuracies are drawn.
PANELS = (
    ("train_loss", "training loss (nats)"),
    ("test_loss", "test loss (nats)"),
    ("holdout_error1", "hold-out accuracy (%)"),
    ("test_error1", "test accuracy (%)"),
)
_MARKS = 6

#: Of one run, by name, an entry for each finished epoch.
Columns = Mapping[str, Sequence[float | None]]


def draw_curves(curves: Mapping[str, Sequence[Sequence[EpochMetrics]]], stem: Path) -> list[Path]:
    """Draw ``stem.png`` and ``stem.pdf``: a panel per quantity, a line per arm; nothing where no epoch is finished.

    Args:
        curves: For each arm the rows of each of its runs.
        stem: Path without a suffix.
    """
    with style():
        arms = {arm: [columns_of(rows) for rows in runs] for arm, runs in curves.items()}
        paths = []
        for picture in pictures(arms, WIDTHS[2]):
            add_title(picture.figure, picture.caption)
            paths += write_figure(picture.figure, stem)
        return paths


def averaged(arm: ArmShown) -> list[Columns]:
    """Runs that a curve is the mean of: the finished ones, or all that have begun where none is."""
    begun = [run for run in arm.runs if run.epochs]
    return [run.columns for run in begun if run.state == "finished"] or [run.columns for run in begun]


def pictures(arms: Mapping[str, Sequence[Columns]], width: float) -> Iterator[Picture]:
    """The curves, if an epoch is finished.

    Args:
        arms: The runs of each arm, in the order that gives arms their looks.
        width: Of the figure, in inches.
    """
    bands = {name: {arm: band(runs, name) for arm, runs in arms.items()} for name, _ in PANELS}
    drawn = [(name, title) for name, title in PANELS if any(bands[name].values())]
    if not drawn:
        return
    columns = min(len(drawn), 4 if width > WIDTHS[1] else 2)
    figure = make_figure(width, 1.5 * -(-len(drawn) // columns))
    shown = [arm for arm in arms if any(bands[name][arm] for name, _ in drawn)]
    for axes, (name, title) in zip(panels(figure, len(drawn), columns), drawn, strict=True):
        for index, arm in enumerate(arms):
            _draw(axes, bands[name][arm], index, len(arms))
        axes.set(xlabel="epoch", title=title)
        axes.locator_params(axis="x", integer=True, nbins=4)
        if name.endswith("loss") and all(low > 0 for found in bands[name].values() for _, _, low, _ in found):
            logarithmic(axes, "y")
    add_legend(figure, [key(look(index), arm) for index, arm in enumerate(arms) if arm in shown], shown)
    counts = sorted({len(runs) for arm, runs in arms.items() if arm in shown})
    yield Picture("curves", figure, f"Means over {_seeds(counts)}; bands reach from the lowest to the highest seed.")


def band(runs: Sequence[Columns], name: str) -> list[tuple[int, float, float, float]]:
    """Epoch, mean, lowest and highest over runs, at the epochs that all of them evaluated."""
    found = []
    for epoch, row in enumerate(zip(*(run[name] for run in runs), strict=False), 1):
        values = [value for value in row if value is not None]
        if len(values) == len(row):
            shown = [100 - value for value in values] if name.endswith("error1") else values
            found.append((epoch, sum(shown) / len(shown), min(shown), max(shown)))
    return found


def _draw(axes: "Axes", found: Sequence[tuple[int, float, float, float]], index: int, arms: int) -> None:
    if not found:
        return
    epochs, means, lows, highs = zip(*found, strict=True)
    how = look(index)
    step = max(1, len(epochs) // _MARKS)  # marks of several arms stand beside each other
    every = (index * step // arms, step)
    axes.plot(epochs, means, how.dash, color=how.colour, marker=how.marker, markevery=every)
    axes.fill_between(epochs, lows, highs, color=how.colour, alpha=0.15, linewidth=0)


def _seeds(counts: Sequence[int]) -> str:
    return f"{' or '.join(map(str, counts))} seed{'' if list(counts) == [1] else 's'}"
