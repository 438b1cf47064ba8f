"""Claim 1: two wells of equal depth in one dimension, smoothed by boxes of growing half-width."""

from pathlib import Path

import drawing
import torch

from claim.runs import Record
from smoothout.report.paper.figures import COLOURS, make_figure

CLAIM = "A 1-D double well: the narrow minimum vanishes once a exceeds its half-width; the wide one hardly moves."
HOW = (
    "Two parabolic wells of depth 1 on a plateau, half-widths 0.2 at -2 and 1.5 at 2, convolved with a box of "
    "half-width a on a grid. What is left of the depth of a well alone on its plateau is its area over the width of "
    "the box, once the box is the wider one: 4/3 of the half-width over 2a. It falls as 1/a, and there is no strength "
    "at which it is gone; what a box does is to make narrow wells shallow in proportion."
)
NARROW, WIDE = 0.2, 1.5  # half-widths, at -2 and 2
STRENGTHS = tuple(factor * NARROW for factor in (0.0, 0.5, 1, 2, 4))
GRID = torch.linspace(-4, 5, 4501, dtype=torch.float64)
OFFSETS = (torch.arange(500, dtype=torch.float64) + 0.5) / 250 - 1  # midpoints of (-1, 1)


def measure(jobs: int) -> Record:
    """Depths of both wells at each strength."""
    del jobs
    rows = []
    for a in STRENGTHS:
        smoothed = smooth(a)
        depth = {
            name: -smoothed[(GRID - at).abs() < half + a].min().item()
            for name, at, half in (("narrow", -2, NARROW), ("wide", 2, WIDE))
        }
        lowest = GRID[(GRID > 0) & (smoothed == smoothed[GRID > 0].min())].mean().item()
        rows.append({"a": a, "a / half-width": a / NARROW, "depth": depth, "wide minimum at": lowest})
    narrows, wides = ([row["depth"][name] for row in rows] for name in ("narrow", "wide"))
    moved = abs(rows[-1]["wide minimum at"] - rows[0]["wide minimum at"])
    verdict = (
        f"the narrow well {'vanishes' if narrows[2] < 0.05 else 'does not vanish'} at a = its half-width: its depth is "
        f"{narrows[2]:.2f} of {narrows[0]:.2f} there and {narrows[-1]:.2f} at four times that; the wide one keeps "
        f"{wides[-1]:.2f} of {wides[0]:.2f} and moves by {moved:.3f}"
    )
    return {"rows": rows, "verdict": verdict}


def loss(x: torch.Tensor) -> torch.Tensor:
    """Of the two wells."""
    wells = [(1 - ((x - at) / half) ** 2).clamp(min=0) for at, half in ((-2.0, NARROW), (2.0, WIDE))]
    return -(wells[0] + wells[1])


def smooth(a: float) -> torch.Tensor:
    """The loss on the grid, averaged over a box."""
    return loss(GRID[:, None] + a * OFFSETS[None, :]).mean(1)


def page(record: Record) -> list[str]:
    """Depths."""
    lines = ["| a / half-width | depth, narrow well | depth, wide well | wide minimum at |", "|---|---|---|---|"]
    for row in record["rows"]:
        depths = " | ".join(f"{row['depth'][name]:.3f}" for name in ("narrow", "wide"))
        lines.append(f"| {row['a / half-width']:g} | {depths} | {row['wide minimum at']:.3f} |")
    return lines


def draw(record: Record) -> Path:
    """The smoothed losses, and the depths."""
    figure = make_figure(9, 3.2)
    left, right = figure.subplots(1, 2)
    for colour, a in zip(COLOURS, STRENGTHS, strict=False):
        left.plot(GRID[::10], smooth(a)[::10], color=colour, label=f"a = {a:g}", linewidth=1)
    left.set(xlabel="w", ylabel="smoothed loss")
    left.legend(frameon=False, fontsize=8)
    for colour, name in zip(COLOURS[4:], ("narrow", "wide"), strict=False):
        depths = [row["depth"][name] for row in record["rows"]]
        right.plot([row["a / half-width"] for row in record["rows"]], depths, "o-", color=colour, label=f"{name} well")
    right.axvline(1, color=COLOURS[0], linewidth=0.8, linestyle="--")
    right.set(xlabel="a / half-width of the narrow well", ylabel="depth", ylim=(0, 1.05))
    right.legend(frameon=False)
    return drawing.write(figure, "claim-1")
