"""A report of folders: what a page and figures for papers are made from."""

from collections.abc import Sequence
from pathlib import Path

import smoothout
from smoothout import _checks
from smoothout.report import arms, landscapes, measures, sources, words
from smoothout.report.record import Group, Origin, Report
from smoothout.report.sources import Found, RunFound, distinct


def make(paths: Sequence[Path], command: str, against: str | None = None) -> Report:
    """Read folders and put together what they say.

    Args:
        paths: Folders of runs, comparisons, measures of sharpness and landscapes.
        command: What makes the report again.
        against: The arm that all are compared with, in place of what comparisons say.

    Raises:
        FileNotFoundError: If a path names nothing of ours.
        ValueError: If there is no run, or no arm ``against``.
    """
    found = sources.search(paths)
    tasks = _by_task(found.runs)
    if against is not None:
        names = [arm.name for runs in tasks for arm in arms.arms_of(runs, None)]
        _checks.known("against", against, names)
    groups = tuple(_group(runs, found, against) for runs in tasks)
    return Report(sources.now(), smoothout.__version__, command, groups, tuple(found.left_out))


def _by_task(runs: Sequence[RunFound]) -> list[list[RunFound]]:
    """Runs of one model on one data set together."""
    return [[run for run in runs if arms.task(run) == task] for task in distinct(map(arms.task, runs))]


def _group(runs: Sequence[RunFound], found: Found, against: str | None) -> Group:
    together = arms.arms_of(runs, against)
    shown = arms.show(together)
    measured = measures.show(together, found)
    lines, planes = landscapes.show(together, found)
    return Group(
        title=arms.title(runs[0]),
        settings=arms.shared(together),
        arms=shown,
        measures=measured,
        lines=lines,
        planes=planes,
        origins=tuple(_origins(runs, found)),
        summary=words.summary(shown, together, measured),
    )


def _origins(runs: Sequence[RunFound], found: Found) -> list[Origin]:
    """Where the runs of a group come from; runs that one command made are one entry."""
    entries = []
    for path, process in sources.origins(found):
        if any(run.path.resolve().is_relative_to(path.resolve()) for run in runs):
            entries.append(
                Origin(
                    path=str(path),
                    command=process.command,
                    commit=process.commit,
                    machine=process.machine,
                    versions=process.versions,
                    started=process.started,
                    ended=process.ended,
                )
            )
    return entries
