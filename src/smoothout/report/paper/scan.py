"""The picture of a scan: rise of the loss against the strength, a line per scale, the ranges worth trying shaded."""

from collections.abc import Sequence
from pathlib import Path

from smoothout.report.paper.figures import COLOURS, make_figure, write_figure
from smoothout.results.scan import Scan


def draw_scans(scans: Sequence[Scan], stem: Path) -> list[Path]:
    """Draw ``stem.png`` and ``stem.pdf``; error bars are standard errors over draws."""
    figure = make_figure(4.6 * len(scans), 4.2)
    for index, (axes, scan) in enumerate(zip(figure.subplots(1, len(scans), squeeze=False)[0], scans, strict=True)):
        strengths = [point.strength for point in scan.points]
        rises = [point.value for point in scan.points]
        errors = [point.standard_error for point in scan.points]
        axes.errorbar(strengths, rises, errors, color=COLOURS[index + 1], marker="o", capsize=3)
        if scan.low == scan.low:
            axes.axvspan(scan.low, scan.high, color=COLOURS[index + 1], alpha=0.15, label="worth trying")
            axes.legend(frameon=False)
        axes.set(xscale="log", yscale="log", xlabel=f"strength a, scale {scan.scale}", ylabel="rise of the loss (nats)")
        axes.grid(alpha=0.3)
    return write_figure(figure, stem)
