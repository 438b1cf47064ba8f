"""``smoothout diagnose``."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import tyro
from rich.console import Console
from rich.table import Table

from smoothout import _checks
from smoothout.cli.arguments import Replacements, parse
from smoothout.cli.progress import progress
from smoothout.measuring.diagnosis import Trials, diagnose
from smoothout.results import checkpoints
from smoothout.results.diagnosis import Diagnosis, Facts
from smoothout.results.files import write_json
from smoothout.results.gradient_noise import NoiseScale
from smoothout.results.scan import Scan
from smoothout.train import checkpoint

DESCRIPTION = (
    "Say why a run does worse than it should, and what would help: more updates, other rates, or noise. Trains it "
    "again with one change at a time and scores on the hold-out; test samples play no part."
)
PIPE_WIDTH = 150


@dataclass(frozen=True)
class Arguments:
    """What to diagnose."""

    run: tyro.conf.Positional[Path]
    """Folder of a finished run, which may be a short one, or of a checkpoint, such as RUN/checkpoints/best."""
    epochs: int | None = None
    """Epochs of each trial [None: those of the run]."""
    seeds: tuple[int, ...] = (300, 301, 302)
    """Seeds of each trial."""
    trials: bool = True
    """Train with one change at a time; without, the verdict rests on the run and its checkpoint alone."""
    samples: int = 1000
    """Training samples for the noise curves."""
    replacements: Replacements = field(default_factory=Replacements)
    jobs: int = 1
    """Trials that train at the same time."""

    def __post_init__(self) -> None:
        _checks.whole("samples", self.samples, at_least=1)
        _checks.whole("jobs", self.jobs, at_least=1)
        if self.trials and len(set(self.seeds)) < 2:
            raise ValueError(f"the seeds are {self.seeds}; expected two or more, for an interval; or --no-trials.")


def run(arguments: Sequence[str]) -> int:
    """Run the command."""
    chosen = parse(Arguments, arguments, "diagnose", DESCRIPTION)
    console = Console(highlight=False, soft_wrap=True)
    if not console.is_terminal:
        console.width = PIPE_WIDTH
    folder, name = _written_to(chosen.run)
    settings = checkpoint.load_settings(checkpoint.find(chosen.run), **chosen.replacements.given)
    trials = Trials(chosen.epochs, chosen.seeds if chosen.trials else (), chosen.jobs)
    with progress(console, "trials") as tell:
        found = diagnose(chosen.run, folder / "diagnosis", settings, trials, chosen.samples, tell)
    for line in report(found):
        console.print(line, markup=False) if isinstance(line, str) else console.print(line)
    # Without trials it is another diagnosis, which must not replace a whole one.
    path = folder / f"{name}{'' if chosen.trials else '-without-trials'}.json"
    write_json(path, found)
    console.print(f"written: {path}", markup=False)
    return 0


def _written_to(path: Path) -> tuple[Path, str]:
    """Folder and name of the diagnosis of a run or checkpoint.

    Raises:
        FileNotFoundError: If it is neither, or the run is not finished.
    """
    if path.is_file():
        raise FileNotFoundError(
            f"{path} is a file, which does not say how it was trained; expected the folder of a run or of a checkpoint."
        )
    if (path / checkpoints.STATE).is_file():
        of_run = path.parent.name == "checkpoints"
        return (path.parents[1] if of_run else path.parent), f"diagnosis-of-{path.name}"
    if not (path / "config.json").is_file():
        raise FileNotFoundError(
            f"{path} is neither a run nor a checkpoint; expected a folder such as runs/NAME or "
            f"runs/NAME/checkpoints/last."
        )
    if not (path / "result.json").is_file():
        raise FileNotFoundError(
            f"{path} is not finished; expected result.json there. Go on with: smoothout train --name {path.name} "
            f"--resume. Or name its checkpoint: {path / 'checkpoints' / 'last'}."
        )
    return path, "diagnosis"


def report(found: Diagnosis) -> list[str | Table]:
    """Facts, effects and verdicts."""
    lines: list[str | Table] = [*_facts(found.facts), *map(_sharpness, found.scans)]
    if found.effects:
        lines.append(_effects(found))
        lines += [f"failed: {effect.name}, {error}" for effect in found.effects for error in effect.errors]
    for number, verdict in enumerate(found.verdicts, 1):
        lines += [f"{number}. {verdict.advice}", f"   because: {verdict.reason}", f"   doubt: {verdict.doubt}"]
    return lines


def _facts(facts: Facts) -> list[str | Table]:
    return [
        f"updates: {facts.updates}{'' if facts.updates == facts.planned else f' of {facts.planned} planned'}, of "
        f"{facts.samples_per_update} samples",
        f"accuracy: train {facts.train_accuracy:.2f} %, hold-out {facts.holdout_accuracy:.2f} %; loss "
        f"{facts.train_loss:.4g} and {facts.holdout_loss:.4g}",
        f"gradient noise scale, about the critical batch size: {_scale(facts.at_start)} at the start, "
        f"{_scale(facts.at_end)} at the end",
    ]


def _scale(scale: NoiseScale) -> str:
    """Never without its error, and marked if it is doubtful."""
    error = "" if scale.standard_error != scale.standard_error else f" +- {scale.standard_error:.2g}"
    return f"{scale.value:.3g}{error}{f' (!: {scale.doubts[0]})' if scale.doubts else ''} samples"


def _sharpness(scan: Scan) -> str:
    """The rise of the loss under noise, in the range worth trying; at the strongest noise where there is none."""
    points = [point for point in scan.points if scan.worth(point)] or list(scan.points[-1:])
    rises = ", ".join(f"{point.value:.2g} +- {point.standard_error:.1g} at {point.strength:.2g}" for point in points)
    worth = scan.reason if math.isnan(scan.low) else f"strengths worth trying: {scan.low:.2g} to {scan.high:.2g}"
    return f"sharpness, nats by which noise of scale {scan.scale} raises the loss: {rises}; {worth}"


def _effects(found: Diagnosis) -> Table:
    short = "" if found.trial_updates == found.facts.planned else f", in trials of {found.trial_updates} updates"
    drawn = Table(title=f"one change at a time{short}: paired differences in points, mean +- 95 % interval")
    for column in ("change", "hold-out accuracy", "train accuracy", "seeds"):
        drawn.add_column(column, justify="left" if column == "change" else "right")
    for effect in found.effects:
        drawn.add_row(effect.name, str(effect.difference), str(effect.train), str(effect.difference.count))
    return drawn
