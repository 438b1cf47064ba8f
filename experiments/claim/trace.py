"""Claim 3: the rise of the loss under weak noise, against the trace of the Hessian computed exactly."""

import math
from pathlib import Path

import drawing
import torch
from torch import nn

from claim.runs import Record
from smoothout import sharpness
from smoothout.report.paper.figures import COLOURS, make_figure

CLAIM = "For small a, Cbar - C tends to (a^2/6) tr H; uniform and variance-matched Gaussian noise agree."
HOW = (
    "A network of 103 weights in float64; the trace of its Hessian by differentiating every coordinate of the "
    "gradient. The rise under noise over a^2/6 times that trace, from 400 antithetic pairs, with its standard error; "
    "the normal noise has the standard deviation a / sqrt(3). The claim is about the three smallest strengths."
)
KINDS = ("uniform", "normal")


def measure(jobs: int) -> Record:
    """Rise over prediction at each strength."""
    del jobs
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 10), nn.Tanh(), nn.Linear(10, 3)).double()
    data = [(torch.randn(80, 6).double(), torch.randint(0, 3, (80,)))]
    exact = trace(model, *data[0])
    rows = []
    for a in (0.003, 0.01, 0.03, 0.1, 0.3):
        row: Record = {"a": a}
        for kind, strength in zip(KINDS, (a, a / math.sqrt(3)), strict=True):
            rise = sharpness.noise(model, data, strength=strength, distribution=kind, pairs=400, max_pairs=400)
            unit = a**2 / 6 * exact
            row[f"{kind} / prediction"] = [rise.value / unit, rise.standard_error / unit]
        rows.append(row)
    near = [abs(row[f"{kind} / prediction"][0] - 1) < 3 * row[f"{kind} / prediction"][1] + 0.01
            for row in rows[:3] for kind in KINDS]  # fmt: skip
    return {"trace of the Hessian": exact, "rows": rows, "verdict": "holds" if all(near) else "does not hold"}


def trace(model: nn.Module, inputs: torch.Tensor, targets: torch.Tensor) -> float:
    """Of the Hessian, by a second derivative of each coordinate."""
    parameters = list(model.parameters())
    loss = nn.functional.cross_entropy(model(inputs), targets)
    first = torch.cat([g.flatten() for g in torch.autograd.grad(loss, parameters, create_graph=True)])
    return sum(
        float(torch.cat([g.flatten() for g in torch.autograd.grad(each, parameters, retain_graph=True)])[index])
        for index, each in enumerate(first)
    )


def page(record: Record) -> list[str]:
    """Ratios."""
    lines = ["| a | uniform / prediction | normal / prediction |", "|---|---|---|"]
    for row in record["rows"]:
        cells = ["{:.3f} +- {:.3f}".format(*row[f"{kind} / prediction"]) for kind in KINDS]
        lines.append(f"| {row['a']:g} | {' | '.join(cells)} |")
    return [*lines, "", f"The trace is {record['trace of the Hessian']:.3f}; +- are standard errors."]


def draw(record: Record) -> Path:
    """Ratios against strength."""
    figure = make_figure(5.5, 3.2)
    axes = figure.subplots()
    for colour, kind in zip(COLOURS[4:], KINDS, strict=False):
        found = [row[f"{kind} / prediction"] for row in record["rows"]]
        strengths = [row["a"] for row in record["rows"]]
        axes.errorbar(
            strengths, [v for v, _ in found], [e for _, e in found], color=colour, label=kind, capsize=2, fmt="o-"
        )
    axes.axhline(1, color=COLOURS[0], linewidth=0.8)
    axes.set(xscale="log", xlabel="strength a", ylabel="rise / ((a^2 / 6) tr H)")
    axes.legend(frameon=False)
    return drawing.write(figure, "claim-3")
