"""The picture of a scan: rise of the loss against the strength, a panel per scale, the ranges worth trying shaded."""

from collections.abc import Sequence
from pathlib import Path

from smoothout.report.paper.figures import WIDTHS, logarithmic, look, make_figure, style, write_figure
from smoothout.report.paper.sharpness import errorbars
from smoothout.results.scan import Scan


def draw_scans(scans: Sequence[Scan], stem: Path) -> list[Path]:
    """Draw ``stem.png`` and ``stem.pdf``; error bars are standard errors over draws."""
    with style():
        figure = make_figure(min(WIDTHS[2], WIDTHS[1] * len(scans)), 2.6)
        for index, (axes, scan) in enumerate(zip(figure.subplots(1, len(scans), squeeze=False)[0], scans, strict=True)):
            how = look(index + 1)
            errorbars(axes, [(p.strength, p.value, p.value - p.standard_error, p.value + p.standard_error)
                             for p in scan.points], how)  # fmt: skip
            if scan.low == scan.low:
                axes.axvspan(scan.low, scan.high, color=how.colour, alpha=0.15, label="worth trying")
                axes.legend()
            axes.set(xlabel=f"strength a, scale {scan.scale}", ylabel="rise of the loss (nats)")
            logarithmic(axes, "x", "y")
        return write_figure(figure, stem)
