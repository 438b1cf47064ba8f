"""``smoothout train``."""

import dataclasses
import datetime
import shlex
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from smoothout.cli.arguments import parse
from smoothout.launch import join, launched, leave, may_restart, note, noted
from smoothout.results.runs import EpochMetrics, Risk, RunResult
from smoothout.train.config import Settings
from smoothout.train.run_folder import RunFolder
from smoothout.train.trackers import Tracker
from smoothout.train.user_code import named_again

if TYPE_CHECKING:
    from smoothout.ranks import Ranks
    from smoothout.train.plan import Plan

DESCRIPTION = "Train a network with ghost batches and weight noise, and evaluate it after every epoch."


@dataclass(frozen=True)
class Output:
    """Where results go: RESULTS_DIR/NAME."""

    name: str | None = None
    """Name of the run [default: a time stamp]."""
    results_dir: Path = Path("runs")
    """Folder of all runs."""
    resume: bool = False
    """Go on with the run of this name; its settings are kept, and code (FILE.py:function) is named again."""
    overwrite: bool = False
    """Delete the run of this name and start anew."""
    print_freq: int = 0
    """Print a line after so many updates; 0 for one line an epoch."""
    track: tuple[Tracker, ...] = ()
    """Trackers that are told every epoch, such as tensorboard, whose files go to the run's folder."""


@dataclass(frozen=True)
class Arguments(Settings):
    """Settings of a run and where it goes."""

    output: Output = field(default_factory=Output)

    @property
    def settings(self) -> Settings:
        """The settings alone."""
        return Settings(**{group.name: getattr(self, group.name) for group in dataclasses.fields(Settings)})


def run(arguments: Sequence[str]) -> int:
    """Run the command; of several processes that a launcher started, each calls this."""
    chosen = parse(Arguments, arguments, "train", DESCRIPTION)
    output = chosen.output
    if output.resume and output.overwrite:
        raise ValueError("--resume and --overwrite contradict each other; give one of them.")
    if output.resume and output.name is None:
        raise ValueError("--resume needs --name, the run to go on with.")
    if output.name is None and may_restart():
        raise ValueError(
            "torchrun may start the run again and there is no --name by which it would find it; expected one. Give "
            "--name, or leave --max-restarts out."
        )
    ranks = join()
    status = _run_first(chosen, arguments, ranks) if ranks.first else _run_other(chosen, ranks)
    leave()
    return status


def _run_first(chosen: Arguments, arguments: Sequence[str], ranks: "Ranks") -> int:
    """The process that has the run's folder, and tells the others what is in it."""
    # Not before, since they take seconds: --help and mistakes in the options are answered at once.
    from smoothout.results.processes import first_command, recorded
    from smoothout.train.loop import train
    from smoothout.train.provenance import command_of, machine, versions
    from smoothout.train.run import prepare

    output = chosen.output
    path = output.results_dir / (output.name or datetime.datetime.now().strftime("%Y-%m-%d_%H-%M-%S"))
    made = f"made {path.resolve()}"
    resume = output.resume or noted(made)  # by those in whose place torchrun started these
    if resume:
        folder = RunFolder.open(path)
        settings = _resumed(arguments, folder)
        finished = (path / "result.json").is_file()
        ranks.from_first((resume, finished, settings))
        if finished:
            print(f"{path} is finished; see {path / 'metrics.csv'}.")
            return 0
        prepared = prepare(settings, track=output.track, logging_dir=path, resume=True)
        command = first_command(path) or command_of(settings)
    else:
        settings = chosen.settings
        RunFolder.refuse_existing(path, overwrite=output.overwrite)
        ranks.from_first((resume, False, None))
        # Before the folder is made: a mistake leaves none behind.
        prepared = prepare(settings, track=output.track, logging_dir=path)
        folder = RunFolder.create(path, settings, overwrite=output.overwrite)
        note(made)
        command = shlex.join(["smoothout", "train", *arguments])
    try:
        here = machine(prepared.accelerator.device)
        with recorded(path, command, versions(), here), Show(folder, prepared.plan, output.print_freq) as show:
            show.finished(train(prepared, folder, show, resume=resume))
    except KeyboardInterrupt:
        where = "" if output.results_dir == Output().results_dir else f" --results-dir {output.results_dir}"
        where += "".join(f" --{n.replace('_', '-')} {shlex.quote(text)}" for n, text in named_again(settings).items())
        how = ", by the same launcher" if launched().several else ""
        print(f"\nGo on with{how}: smoothout train --name {path.name}{where} --resume", file=sys.stderr)
        raise
    return 0


def _run_other(chosen: Arguments, ranks: "Ranks") -> int:
    """A process that only computes; nothing of the folder need be seen from its machine."""
    from smoothout.train.loop import Unwatched, train
    from smoothout.train.run import prepare

    resume, finished, stored = ranks.from_first((False, False, None))
    if not finished:
        train(prepare(stored or chosen.settings, resume=resume), None, Unwatched(), resume=resume)
    return 0


def _resumed(arguments: Sequence[str], folder: RunFolder) -> Settings:
    """The stored settings; options given again must agree with them, and code must be named again."""
    from smoothout.train.checkpoint import refuse_unnamed

    stored = folder.settings
    # What a stored config must not decide alone stands there as nothing, unless an option names it.
    again = named_again(stored)
    blank = {name: "{}" if name == "model_config" else "" for name in again}
    groups = {g.name: getattr(stored.replace(**blank), g.name) for g in dataclasses.fields(Settings)}
    given = parse(Arguments, arguments, "train", DESCRIPTION, default=Arguments(**groups)).settings.flat()
    refuse_unnamed(folder.path / "config.json", {n: text for n, text in again.items() if given[n] == blank[n]})
    for name, value in given.items():
        old = stored.flat()[name]
        if value != old:
            raise ValueError(
                f"{name} is {value!r} and the run was started with{'out it' if old is None else f' {old!r}'}; a "
                f"resumed run goes on exactly. Leave the option out, or start another run."
            )
    return stored


class Show:
    """Shows a run: bars and a live line on a terminal, plain lines in a pipe; and writes log.txt."""

    def __init__(self, folder: RunFolder, plan: "Plan", print_freq: int) -> None:
        self._folder, self._plan, self._print_freq = folder, plan, print_freq
        self._update = 0
        self._best_holdout = 0.0
        self._console = Console(file=sys.stdout, highlight=False, soft_wrap=True)
        self._bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("updates"),
            TimeRemainingColumn(),
            console=self._console,
            disable=not self._console.is_terminal,
        )
        self._task = self._bar.add_task("starting", total=None)

    def __enter__(self) -> "Show":
        self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.stop()

    def started(self, lines: list[str], updates: int) -> None:
        """Print what the run is."""
        self._say(f"run: {self._folder.path}")
        for line in lines:
            self._say(line)
        self._update = self._plan.total_updates - updates
        self._bar.update(self._task, description="training", total=updates)

    def updated(self, seen: Callable[[], Risk]) -> None:
        """Move the bar, and print a line now and then if asked to."""
        self._bar.advance(self._task)
        self._update += 1
        if self._print_freq and self._update % self._print_freq == 0:
            risk = seen()
            whose = ", by the ghost batches of process 0" if launched().several else ""
            self._say(
                f"update {self._update}  loss {risk.loss:.4f}  error {risk.error1:.2f} %, of this epoch so far{whose}"
            )

    def finished_epoch(self, row: EpochMetrics, best: bool) -> None:
        """Print the epoch's line."""
        epochs = self._plan.epochs
        self._say(
            f"epoch {row.epoch}/{epochs}  train loss {row.train_loss:.4f}  "
            f"accuracy: hold-out {100 - row.holdout_error1:.2f} %, test {100 - row.test_error1:.2f} %  "
            f"test loss {row.test_loss:.4f}  lr {row.lr:.3g}  r {row.r:.3g}  "
            f"{row.samples_per_second:,.0f} samples/s{'  best' if best else ''}"
        )
        coming = min(row.epoch + 1, epochs)
        text = f"epoch {coming}/{epochs}  train loss {row.train_loss:.3f}  {self._best(row)}"
        self._bar.update(self._task, description=text)

    def _best(self, row: EpochMetrics) -> str:
        """Hold-out accuracy now and at its best, for the live line."""
        now = 100 - row.holdout_error1
        self._best_holdout = max(self._best_holdout, now) if now == now else self._best_holdout  # noqa: PLR0124
        return f"hold-out {now:.2f} % (best {self._best_holdout:.2f} %)"

    def finished(self, result: RunResult) -> None:
        """Print how the run ended."""
        self._say(
            f"accuracy, last epoch: train {result.train_accuracy_last:.2f} %, "
            f"hold-out {result.holdout_accuracy_last:.2f} %, test {result.test_accuracy_last:.2f} %"
        )
        self._say(
            f"accuracy, best by hold-out (epoch {result.best_epoch}): hold-out {result.holdout_accuracy_best:.2f} %, "
            f"test {result.test_accuracy_best:.2f} %"
        )
        if self._plan.settings.noise.strength == "auto":
            last = self._folder.metrics()[-1]
            self._say(f"strength of the last update: {last.strength:.3g}, r = {last.r:.3g} (each epoch's: metrics.csv)")
        self._say(f"written: {self._folder.path}")

    def _say(self, line: str) -> None:
        self._folder.log(line)
        self._console.print(line, markup=False)
