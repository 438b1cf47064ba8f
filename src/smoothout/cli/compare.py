"""``smoothout compare``."""

import datetime
import json
import shlex
import sys
import tomllib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tyro
from rich.console import Console
from rich.table import Table

from smoothout import _checks
from smoothout.cli.arguments import parse
from smoothout.intervals import Estimate
from smoothout.report.paper.curves import draw_curves
from smoothout.results.comparisons import ArmSummary, slug, summarise
from smoothout.results.files import write_text
from smoothout.results.processes import first_command, recorded
from smoothout.results.runs import read_metrics
from smoothout.train import comparison
from smoothout.train.comparison import Arm, Outcome
from smoothout.train.config import Settings
from smoothout.train.provenance import machine, versions, words_of

DESCRIPTION = "Train arms x seeds, and compare test accuracies: means, 95 % intervals, paired differences."
MAX_WORKERS = 2
PIPE_WIDTH = 170


@dataclass(frozen=True)
class Arguments:
    """What to compare."""

    arms: tyro.conf.Positional[Path]
    """TOML file: [common] and [arms."NAME"] hold options of `smoothout train`; see experiments/demo/arms.toml."""
    seeds: tuple[int, ...] = ()
    """Seeds of the runs; arms share start and data order per seed [default: those of the file, else 0 to 4]."""
    against: str | None = None
    """The arm that all are compared with [default: as the file says]."""
    name: str | None = None
    """Name of the comparison [default: a time stamp]."""
    results_dir: Path = Path("runs")
    """Folder of all runs."""
    jobs: int = 2
    """Processes that train at the same time, 1 or 2."""
    resume: bool = False
    """Go on with the comparison of this name, of the same arms and seeds; finished runs are kept."""
    overwrite: bool = False
    """Delete the comparison of this name and start anew."""

    def __post_init__(self) -> None:
        _checks.whole("jobs", self.jobs, at_least=1, below=MAX_WORKERS + 1)
        if self.resume and self.overwrite:
            raise ValueError("--resume and --overwrite contradict each other; give one of them.")
        if self.resume and self.name is None:
            raise ValueError("--resume needs --name, the comparison to go on with.")


def run(arguments: Sequence[str]) -> int:
    """Run the command."""
    chosen = parse(Arguments, arguments, "compare", DESCRIPTION)
    arms, seeds = read_arms(chosen.arms, chosen.against)
    seeds = chosen.seeds or seeds
    if len(set(seeds)) < len(seeds):
        raise ValueError(f"the seeds are {', '.join(map(str, seeds))}; expected each once.")
    folder = chosen.results_dir / (chosen.name or datetime.datetime.now().strftime("%Y-%m-%d_%H-%M-%S"))
    comparison.start(folder, arms, seeds, overwrite=chosen.overwrite, resume=chosen.resume)
    command = (chosen.resume and first_command(folder)) or shlex.join(["smoothout", "compare", *arguments])
    with recorded(folder, command, versions(), machine()):
        return _compare(folder, arms, seeds, chosen.jobs)


def _compare(folder: Path, arms: Sequence[Arm], seeds: Sequence[int], jobs: int) -> int:
    """Train what is missing, and say what came of it; returns the exit status."""
    console = Console(highlight=False, soft_wrap=True)
    if not console.is_terminal:
        console.width = PIPE_WIDTH
    console.print(f"{len(arms)} arms x {len(seeds)} seeds, {jobs} at a time, in {folder}", markup=False)
    total, done = len(arms) * len(seeds), 0

    def tell(outcome: Outcome) -> None:
        nonlocal done
        done += 1
        console.print(f"[{done}/{total}] {_line(outcome)}", markup=False)

    try:
        outcomes = comparison.run_all(folder, arms, seeds, jobs, tell)
    except KeyboardInterrupt:
        print(f"\nGo on with: the same command, --name {folder.name} --resume", file=sys.stderr)
        raise
    comparison.write_results(folder, outcomes)
    summaries = summarise({arm.name: arm.against for arm in arms}, comparison.finished(outcomes))
    console.print(table(summaries))
    for sentence in words(summaries) or ["No arm says what it is against; name an arm by --against."]:
        console.print(sentence, markup=False)
    pictures = draw_curves(_curves(folder, arms, outcomes), folder / "curves")
    console.print(f"written: {', '.join(str(p) for p in (folder / 'results.json', folder / 'results.csv', *pictures))}")
    failed = [outcome for outcome in outcomes if outcome.result is None]
    return 1 if failed else 0


def read_arms(path: Path, against: str | None = None) -> tuple[list[Arm], tuple[int, ...]]:
    """Read the arms and seeds of a TOML file; ``against`` replaces what the arms are compared with.

    Raises:
        FileNotFoundError, ValueError: If the file is missing or not of that form.
    """
    if not path.is_file():
        raise FileNotFoundError(f"{path} is not there; expected a TOML file of arms.")
    try:
        content = tomllib.loads(path.read_text(encoding="utf-8"))
    except tomllib.TOMLDecodeError as error:
        raise ValueError(f"{path} is no TOML: {error}. See experiments/demo/arms.toml for an example.") from error
    for name in content:
        _checks.known(f"the part of {path}", name, ("against", "arms", "common", "seeds"))
    if not content.get("arms"):
        raise ValueError(f'{path} has no arms; expected tables such as [arms."large batch"].')
    arms = []
    for name, options in content["arms"].items():
        merged = content.get("common", {}) | options
        other = against or merged.pop("against", content.get("against"))
        merged.pop("against", None)
        if "seed" in merged:
            raise ValueError(f"arm {name!r} of {path} has a seed; expected seeds = [...] for all arms, or --seeds.")
        arms.append(Arm(name, _settings(name, merged), other))
    return arms, tuple(content.get("seeds", range(5)))


def _settings(arm: str, options: dict[str, Any]) -> Settings:
    """Settings of an arm; its options go the way of the command's, so they mean and accept the same."""
    return parse(Settings, words_of(options), f"compare: arm {arm!r}", DESCRIPTION)


def write_arms(path: Path, arms: Sequence[Arm], seeds: Sequence[int], comment: str) -> None:
    """Write a file that :func:`read_arms` reads."""
    lines = [f"# {comment}", f"seeds = {list(seeds)}"]
    for arm in arms:
        lines += ["", f"[arms.{json.dumps(arm.name)}]"]
        if arm.against is not None:
            lines.append(f"against = {json.dumps(arm.against)}")
        lines += [f"{name} = {json.dumps(value, default=str)}" for name, value in arm.settings.given().items()]
    write_text(path, "\n".join(lines) + "\n")


def _line(outcome: Outcome) -> str:
    if outcome.result is None:
        return f"{outcome.arm}, seed {outcome.seed}: FAILED: {outcome.error}"
    result = outcome.result
    return (
        f"{outcome.arm}, seed {outcome.seed}: test {result.test_accuracy_last:.2f} %, "
        f"train {result.train_accuracy_last:.2f} %, {result.seconds:.0f} s"
    )


def table(summaries: Sequence[ArmSummary]) -> Table:
    """The arms, with 95 % intervals."""
    drawn = Table(title="test accuracy in percent, mean +- 95 % interval over seeds")
    drawn.add_column("arm")
    for column in (
        "runs",
        "last epoch",
        "best by hold-out",
        "train",
        "updates",
        "difference, last",
        "difference, best",
        "against",
    ):
        drawn.add_column(column, justify="right" if column != "against" else "left")
    for each in summaries:
        drawn.add_row(
            each.arm,
            str(each.runs),
            str(each.test_last),
            str(each.test_best),
            str(each.train_last),
            str(each.updates),
            _signed(each.difference_last),
            _signed(each.difference_best),
            each.against or "",
        )
    return drawn


def _signed(difference: Estimate | None) -> str:
    return "" if difference is None else f"{'+' if difference.mean > 0 else ''}{difference}"


def words(summaries: Sequence[ArmSummary]) -> list[str]:
    """What the differences say: which are certain, that is whose 95 % interval leaves out 0, and which are not."""
    certain: list[str] = []
    open_: list[str] = []
    for each in summaries:
        difference = each.difference_last
        if difference is None or difference.count == 0:
            continue
        text = (
            f"{each.arm} against {each.against}: {difference.mean:+.2f} points "
            f"({difference.low:+.2f} to {difference.high:+.2f})"
        )
        (certain if difference.certain else open_).append(text)
    lines = ["Paired differences in test accuracy after the last epoch, 95 % intervals, each taken alone:"]
    lines += [f"  certain:      {text}" for text in certain]
    lines += [f"  not certain:  {text}" for text in open_]
    return lines if certain or open_ else []


def _curves(folder: Path, arms: Sequence[Arm], outcomes: Sequence[Outcome]) -> dict[str, list[Any]]:
    curves: dict[str, list[Any]] = {arm.name: [] for arm in arms}
    for outcome in outcomes:
        if outcome.result is not None:
            curves[outcome.arm].append(read_metrics(folder / slug(outcome.arm) / str(outcome.seed) / "metrics.csv"))
    return curves
