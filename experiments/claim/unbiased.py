"""Claim 2: SmoothOut's gradient beside that of noise added by hand, coordinate by coordinate."""

import copy
import math
from collections.abc import Iterator
from pathlib import Path

import drawing
import torch
from torch import Tensor, nn

from claim.runs import Record
from smoothout import SmoothOut
from smoothout.report.paper.figures import COLOURS, make_figure

CLAIM = "The estimator is unbiased, and restoring is bit-exact."
HOW = (
    "A network of 103 weights, a = 0.3: its gradient under noise averaged over 4000 draws of SmoothOut, and over 4000 "
    "antithetic pairs, each against an average over 16 000 draws of PyTorch's own uniform generator, added by hand in "
    "float64. Differences over their standard errors (z) are standard normal where both have the same mean: about 5 % "
    "lie beyond 1.96. After all blocks the weights must be those of before, bit for bit."
)
STRENGTH, DRAWS, BY_HAND = 0.3, 4000, 16_000
KINDS = {"draws": False, "antithetic pairs": True}


def measure(jobs: int) -> Record:
    """The z-scores, and whether the weights came back."""
    del jobs
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 10), nn.Tanh(), nn.Linear(10, 3))
    data = torch.randn(50, 6), torch.randint(0, 3, (50,))
    before = [p.detach().clone() for p in model.parameters()]
    truth = average(by_hand(model, *data))
    z = {kind: scores(average(smoothed(model, *data, antithetic)), truth) for kind, antithetic in KINDS.items()}
    exact = all(torch.equal(p, b) for p, b in zip(model.parameters(), before, strict=True))
    share = {kind: sum(abs(each) > 1.96 for each in found) / len(found) for kind, found in z.items()}
    largest = {kind: max(map(abs, found)) for kind, found in z.items()}
    # Coordinates share their samples, so that more than 5 % may well lie outside.
    holds = exact and max(share.values()) < 0.12 and max(largest.values()) < 4.5
    return {
        "coordinates": len(z["draws"]),
        "share beyond 1.96": share,
        "largest z": largest,
        "z": z,
        "restored bit for bit": exact,
        "verdict": "holds" if holds else "does not hold",
    }


def smoothed(model: nn.Module, inputs: Tensor, targets: Tensor, antithetic: bool) -> Iterator[Tensor]:
    """Gradients under SmoothOut's noise, of single draws or of pairs."""
    smoother = SmoothOut(model, STRENGTH, seed=int(antithetic))
    for draw in range(DRAWS):
        parts = []
        for sign in (False, True) if antithetic else (False,):
            with smoother.perturbed(stream=0, draw=draw, antithetic=sign):
                loss = nn.functional.cross_entropy(model(inputs), targets)
                parts.append(torch.cat([g.flatten() for g in torch.autograd.grad(loss, list(model.parameters()))]))
        yield torch.stack(parts).double().mean(0)


def by_hand(model: nn.Module, inputs: Tensor, targets: Tensor) -> Iterator[Tensor]:
    """Gradients under noise that this package has no part in."""
    generator = torch.Generator().manual_seed(1)
    noisy = copy.deepcopy(model).double()
    clean = [p.detach().clone() for p in noisy.parameters()]
    for _ in range(BY_HAND):
        with torch.no_grad():
            for parameter, start in zip(noisy.parameters(), clean, strict=True):
                uniform = torch.rand(start.shape, generator=generator, dtype=torch.float64)
                parameter.copy_(start + STRENGTH * (2 * uniform - 1))
        loss = nn.functional.cross_entropy(noisy(inputs.double()), targets)
        yield torch.cat([g.flatten() for g in torch.autograd.grad(loss, list(noisy.parameters()))])


def average(gradients: Iterator[Tensor]) -> tuple[Tensor, Tensor]:
    """Mean and its standard error."""
    stacked = torch.stack(list(gradients))
    return stacked.mean(0), stacked.std(0) / math.sqrt(len(stacked))


def scores(one: tuple[Tensor, Tensor], other: tuple[Tensor, Tensor]) -> list[float]:
    """Differences of means over their standard errors."""
    z = (one[0] - other[0]) / (one[1].square() + other[1].square()).sqrt()
    return [round(each, 4) for each in z.tolist()]


def page(record: Record) -> list[str]:
    """What was counted."""
    lines = ["| average of | coordinates | beyond 1.96 | largest z |", "|---|---|---|---|"]
    for kind, share in record["share beyond 1.96"].items():
        lines.append(f"| {kind} | {record['coordinates']} | {100 * share:.1f} % | {record['largest z'][kind]:.2f} |")
    return [*lines, "", f"Restored bit for bit: {'yes' if record['restored bit for bit'] else 'no'}."]


def draw(record: Record) -> Path:
    """The z-scores beside the standard normal density."""
    figure = make_figure(5.5, 3.2)
    axes = figure.subplots()
    for colour, (kind, z) in zip(COLOURS[1:], record["z"].items(), strict=False):
        axes.hist(z, bins=20, range=(-4, 4), density=True, color=colour, label=kind, histtype="step")
    x = torch.linspace(-4, 4, 161)
    axes.plot(x, torch.exp(-x.square() / 2) / math.sqrt(2 * math.pi), color=COLOURS[0], label="standard normal")
    axes.set(xlabel="z of a coordinate", ylabel="density")
    axes.legend(frameon=False, fontsize=8)
    return drawing.write(figure, "claim-2")
