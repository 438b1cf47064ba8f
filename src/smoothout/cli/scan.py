"""``smoothout scan``."""

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Literal

import tyro
from rich.console import Console
from rich.table import Table

from smoothout import _checks
from smoothout._types import Scale
from smoothout.cli.arguments import Replacements, parse
from smoothout.measuring.subject import Place, Sampling, Subject, load, untrained
from smoothout.report.paper.scan import draw_scans
from smoothout.results.files import write_json
from smoothout.results.scan import Scan
from smoothout.sharpness.scan import scan
from smoothout.train.device import choose

DESCRIPTION = "Loss and accuracy under weight noise against its strength, and the strengths worth trying in training."
PIPE_WIDTH = 120


@dataclass(frozen=True)
class Arguments:
    """What to scan."""

    checkpoint: tyro.conf.Positional[Path | None] = None
    """A checkpoint's folder, a run's, or a file of the original program [None: the initial weights of --model]."""
    scale: tuple[Scale, ...] = ("none", "filter")
    """Of the noise: none (half-width a), weight (a |w|) or filter (a times the filter's norm)."""
    strengths: tuple[float, ...] = ()
    """Strengths a, rising [none: four a decade]."""
    pairs: int = 4
    """Antithetic pairs of draws at each strength."""
    split: Literal["train", "holdout", "test"] = "train"
    """Which samples."""
    sampling: Sampling = field(default_factory=lambda: Sampling(samples=1000))
    replacements: Replacements = field(default_factory=Replacements)
    output: Path | None = None
    """Write OUTPUT.json and pictures OUTPUT.png and .pdf."""
    device: str = "auto"
    """auto (an accelerator if there is one), cpu, cuda or cuda:INDEX."""

    def __post_init__(self) -> None:
        _checks.whole("pairs", self.pairs, at_least=2)
        if not self.scale:
            raise ValueError("scale is empty; expected some of none, weight and filter.")
        if self.checkpoint is None and self.replacements.model is None:
            raise ValueError(
                "no checkpoint is named and no model; expected one of them, such as runs/NAME, or "
                "--model mlp --dataset mnist1d."
            )


def run(arguments: Sequence[str]) -> int:
    """Run the command."""
    chosen = parse(Arguments, arguments, "scan", DESCRIPTION)
    console = Console(highlight=False, soft_wrap=True)
    if not console.is_terminal:
        console.width = PIPE_WIDTH
    subject = _subject(chosen)
    samples = subject.samples[chosen.split]
    scans = [
        scan(
            subject.network,
            samples,
            subject.loss,
            scale=scale,
            strengths=chosen.strengths or None,
            pairs=chosen.pairs,
            classes=subject.classes,
            seed=chosen.sampling.seed,
        )
        for scale in chosen.scale
    ]
    center = scans[0].points[0].center
    console.print(
        f"{subject.path}: {center.samples} {chosen.split} samples, loss {center.loss:.4g}, "
        f"accuracy {100 - center.error1:.2f} % without noise",
        markup=False,
    )
    for each in scans:
        console.print(table(each))
        console.print(words(each), markup=False)
    if chosen.output is not None:
        path = chosen.output.with_name(f"{chosen.output.name}.json")
        write_json(path, [asdict(each) for each in scans])
        console.print(f"written: {', '.join(map(str, (path, *draw_scans(scans, chosen.output))))}", markup=False)
    return 0


def _subject(chosen: Arguments) -> Subject:
    given = tuple(sorted(chosen.replacements.given.items()))
    path = chosen.checkpoint or Path(str(chosen.replacements.model))
    place = Place(path, (chosen.split,), chosen.sampling, str(choose(chosen.device)), given)
    return untrained(place) if chosen.checkpoint is None else load(place)


def table(scan: Scan) -> Table:
    """A row per strength; those worth trying are marked."""
    drawn = Table(title=f"noise of scale {scan.scale}")
    for column in ("strength", "r", "rise of the loss (nats)", "accuracy (%)", ""):
        drawn.add_column(column, justify="right")
    for point in scan.points:
        accuracy = 100 - point.center.error1 - point.error1_rise
        drawn.add_row(
            f"{point.strength:.3g}",
            f"{point.relative_noise:.3g}",
            f"{point.value:.3g} +- {point.standard_error:.2g}",
            f"{accuracy:.2f} +- {point.error1_standard_error:.2g}",
            "worth trying" if scan.worth(point) else "",
        )
    return drawn


def words(scan: Scan) -> str:
    """The range in words."""
    if math.isnan(scan.low):
        return f"worth trying: not said, {scan.reason}. Give other --strengths."
    return f"worth trying: {scan.low:.2g} to {scan.high:.2g}, {scan.reason}; choose on a hold-out (smoothout tune)."
