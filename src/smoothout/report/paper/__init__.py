"""Figures for papers: drawn in their final size, with fonts inside, and the same bytes for the same report."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Literal

from smoothout.report.paper import bars, curves, landscape, sharpness
from smoothout.report.paper.figures import WIDTHS, Picture, style, write_figure
from smoothout.report.record import Group, Report
from smoothout.results.comparisons import slug
from smoothout.results.files import write_text

FORMATS = ("pdf", "png", "svg")


def write(report: Report, folder: Path, formats: Sequence[str], columns: Literal[1, 2]) -> list[Path]:
    """Write all figures of a report, and ``captions.txt``, which says of each what bars and bands are.

    Args:
        report: What to draw; what it has not is left out.
        folder: Where to, made if need be. Names have the group's number and title where there are several.
        formats: Some of :data:`FORMATS`.
        columns: Figures are as wide as one column of a paper (3.25 inches), or as two (6.75).

    Returns:
        What was written.

    Raises:
        ValueError: If there is nothing at all to draw.
    """
    paths: list[Path] = []
    captions: list[str] = []
    with style():
        for prefix, group in _named(report.groups):
            for picture in pictures(group, WIDTHS[columns]):
                folder.mkdir(parents=True, exist_ok=True)
                paths += write_figure(picture.figure, folder / f"{prefix}{picture.name}", formats)
                captions.append(f"{prefix}{picture.name}: {group.title}. {picture.caption}\n")
    if not paths:
        raise ValueError(
            "there is nothing to draw: no run has finished an epoch, and nothing was measured. Report again when one "
            "has, or ask for the page, which says how runs stand."
        )
    write_text(folder / "captions.txt", "\n".join(captions))
    return [*paths, folder / "captions.txt"]


def pictures(group: Group, width: float) -> Iterator[Picture]:
    """The figures of a group, one after another; to be called inside :func:`~smoothout.report.paper.figures.style`."""
    yield from curves.pictures({arm.name: curves.averaged(arm) for arm in group.arms}, width)
    yield from bars.pictures(group.arms, width)
    yield from sharpness.pictures([arm.name for arm in group.arms], group.measures, width)
    yield from landscape.pictures(group.lines, group.planes, width)


def _named(groups: Sequence[Group]) -> Iterator[tuple[str, Group]]:
    """What names of files begin with; nothing for the only group."""
    for index, group in enumerate(groups, 1):
        yield (f"{index}-{slug(group.title)[:40].strip('-.')}-" if len(groups) > 1 else ""), group
