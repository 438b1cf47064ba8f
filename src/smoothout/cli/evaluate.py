"""``smoothout evaluate``."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import tyro
from rich.console import Console
from rich.table import Table

from smoothout.cli.arguments import Replacements, parse
from smoothout.results.files import write_json
from smoothout.train.config import Precision
from smoothout.train.device import choose
from smoothout.train.evaluation import Conditions, Evaluation, evaluate

DESCRIPTION = "Evaluate a checkpoint: loss (nats per sample) and errors (percent) of a split."


@dataclass(frozen=True)
class Arguments:
    """What to evaluate, and how."""

    checkpoint: tyro.conf.Positional[Path]
    """Folder of a checkpoint, or of a run, whose best one is taken, or a model_best.pth.tar of the original program."""
    split: Literal["train", "holdout", "test", "all"] = "test"
    """Which samples."""
    conditions: Conditions = field(default_factory=Conditions)
    replacements: Replacements = field(default_factory=Replacements)
    workers: int | None = None
    """Replaces the number of processes that read images."""
    precision: Precision | None = None
    """Replaces the precision."""
    device: str = "auto"
    """auto (an accelerator if there is one), cpu, cuda or cuda:INDEX."""
    json: Path | None = None
    """Write the numbers to this file, too."""


def run(arguments: Sequence[str]) -> int:
    """Run the command."""
    chosen = parse(Arguments, arguments, "evaluate", DESCRIPTION)
    splits = ("train", "holdout", "test") if chosen.split == "all" else (chosen.split,)
    found = evaluate(
        chosen.checkpoint,
        splits,
        chosen.conditions,
        device=choose(chosen.device),
        precision=chosen.precision,
        workers=chosen.workers,
        **chosen.replacements.given,
    )
    _print(found, chosen.conditions)
    if chosen.json is not None:
        write_json(chosen.json, {"conditions": chosen.conditions, "evaluations": found})
    return 0


def _print(found: list[Evaluation], conditions: Conditions) -> None:
    first = found[0]
    noise = f"noise {conditions.strength:g} ({conditions.scale}, {conditions.distribution})"
    noise += f", r = {first.relative_noise:.3g}"
    table = Table(title=f"{first.checkpoint}; {noise if conditions.strength else 'no noise'}, {first.draws} draw(s)")
    table.add_column("split")
    for column in ("samples", "loss (nats)", "error@1 (%)", "error@5 (%)"):
        table.add_column(column, justify="right")
    for each in found:
        risk = each.risk
        table.add_row(
            each.split,
            str(risk.samples),
            _with_error(risk.loss, each.loss_se, 4),
            _with_error(risk.error1, each.error1_se, 2),
            _with_error(risk.error5, each.error5_se, 2),
        )
    Console().print(table)


def _with_error(mean: float, error: float, digits: int) -> str:
    """Mean +- standard error, or the mean alone where there is none."""
    return f"{mean:.{digits}f}" if error != error else f"{mean:.{digits}f} +- {error:.{digits}f}"  # noqa: PLR0124
