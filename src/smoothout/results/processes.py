"""How a folder of results came about: command, code, machine, and whether its process still runs or how it ended."""

import contextlib
import datetime
import hashlib
import json
import platform
import subprocess
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal, get_args

import psutil

from smoothout import _checks
from smoothout.results.files import write_json
from smoothout.results.runs import read_metrics

NAME = "process.json"
Outcome = Literal["running", "finished", "failed", "interrupted"]
State = Literal["running", "finished", "failed", "interrupted", "vanished", "unknown"]

_GIT_SECONDS = 2.0  # to wait for git, which takes milliseconds unless the disk is slow
_SAME_SECONDS = 2.0  # start times of one process, read twice
_PATIENCE = 3600.0  # seconds without a new file after which a process of another machine counts as vanished


@dataclass(frozen=True)
class Process:
    """The process that fills a folder, or did; ``process.json``.

    Attributes:
        command: What makes the folder again.
        commit: Of the git repository of the working directory, with " and changes" if tracked files differ; None
            outside of one or without git.
        machine: Processor, cores and the like, in words; no name of a host or a user.
        versions: Of smoothout, Python and torch.
        host: A hash of the host's name: pages of results get published.
        pid: Of the process.
        pid_started: Seconds since 1970; tells a process from a later one of the same id.
        started: ISO 8601, UTC.
        ended: The same; None while it runs.
        outcome: "running" unless the process could write how it ended.
        error: Of one that failed, in a line.
    """

    command: str
    commit: str | None
    machine: Mapping[str, str]
    versions: Mapping[str, str]
    host: str
    pid: int
    pid_started: float
    started: str
    ended: str | None
    outcome: Outcome
    error: str | None

    def __post_init__(self) -> None:
        _checks.known("outcome", self.outcome, get_args(Outcome))

    @property
    def lives(self) -> bool:
        """Whether it still runs on this machine."""
        if self.host != _host():
            return False
        try:
            found = psutil.Process(self.pid)
            same = abs(found.create_time() - self.pid_started) < _SAME_SECONDS
            return bool(same and found.status() != psutil.STATUS_ZOMBIE)
        except psutil.Error:
            return False


def read_process(folder: Path) -> Process | None:
    """Read ``process.json`` of a folder; None if there is none.

    Raises:
        ValueError: If it is another program's, or a part of a file.
    """
    path = folder / NAME
    if not path.is_file():
        return None
    try:
        found = Process(**json.loads(path.read_text(encoding="utf-8")))
        float(found.pid_started), int(found.pid)
        dict(found.machine), dict(found.versions)
    except (ValueError, TypeError) as error:
        raise ValueError(
            f"{path} cannot be read ({type(error).__name__}: {error}); expected what smoothout wrote of the process "
            f"that made the folder. Delete it: nothing else needs it."
        ) from error
    return found


def state_of(folder: Path) -> State:
    """Whether the run or comparison of a folder is finished, or what else has become of it.

    A process of another machine that has not said how it ended counts as running as long as files are written: an
    hour, or three times the longest epoch, from the last one.

    Raises:
        ValueError: If its ``process.json`` is another program's.
    """
    if (folder / "result.json").is_file():
        return "finished"
    process = read_process(folder)
    if process is None:
        return "unknown"
    if process.outcome != "running" or process.lives:
        return process.outcome
    return "running" if process.host != _host() and _is_written(folder) else "vanished"


def _is_written(folder: Path) -> bool:
    """Whether files have been written lately, of the folder itself or of a comparison's runs."""
    metrics = [path for path in (folder / "metrics.csv", *folder.glob("*/*/metrics.csv")) if path.is_file()]
    newest = max(path.stat().st_mtime for path in (folder / NAME, *metrics))
    epochs = [0.0]
    for path in metrics:
        with contextlib.suppress(ValueError, KeyError, TypeError):
            epochs += [row.seconds for row in read_metrics(path)]
    return time.time() - newest < max(_PATIENCE, 3 * max(epochs))


@contextlib.contextmanager
def recorded(
    folder: Path,
    command: str,
    versions: Mapping[str, str],
    machine: Mapping[str, str],
    *,
    stops: tuple[type[BaseException], ...] = (),
) -> Iterator[None]:
    """Write to a folder that this process fills it, and on the way out how that ended.

    Args:
        folder: There already.
        command: What makes it again.
        versions, machine: Of what computes.
        stops: Exceptions that mean an end on purpose, not a failure.
    """
    me = psutil.Process()
    process = Process(
        command=command,
        commit=commit_of(Path.cwd(), "-uno"),
        machine=machine,
        versions=versions,
        host=_host(),
        pid=me.pid,
        pid_started=me.create_time(),
        started=_now(),
        ended=None,
        outcome="running",
        error=None,
    )
    write_json(folder / NAME, process)
    try:
        yield
    except BaseException as error:
        with contextlib.suppress(OSError):  # the first error is the one to tell
            if isinstance(error, Exception) and not isinstance(error, stops):
                text = " ".join(f"{type(error).__name__}: {error}".split())
                _end(folder, process, "failed", text)
            else:
                _end(folder, process, "interrupted")
        raise
    _end(folder, process, "finished")


def interrupted(folder: Path) -> None:
    """Say that the process of a folder was ended by the one that started it; nothing if it had ended, or lives."""
    with contextlib.suppress(ValueError):
        process = read_process(folder)
        if process is not None and process.outcome == "running" and not process.lives:
            _end(folder, process, "interrupted")


def first_command(folder: Path) -> str | None:
    """The command that a folder was started with; None if nothing says so."""
    with contextlib.suppress(ValueError):
        process = read_process(folder)
        return None if process is None else process.command
    return None


def _end(folder: Path, process: Process, outcome: Outcome, error: str | None = None) -> None:
    write_json(folder / NAME, replace(process, ended=_now(), outcome=outcome, error=error))


def _now() -> str:
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")


def _host() -> str:
    return hashlib.sha256(platform.node().encode()).hexdigest()[:16]


def commit_of(folder: Path, *status: str) -> str | None:
    """The commit of a folder's git repository, and whether files differ from it; None outside of one or without git.

    Args:
        folder: In the repository.
        status: Arguments of ``git status`` that say which files count, such as ``-uno``.
    """
    words = ["git", "--no-optional-locks", "status", "--porcelain=v2", "--branch", "--no-ahead-behind", *status]
    try:
        done = subprocess.run(words, cwd=folder, capture_output=True, text=True, check=True, timeout=_GIT_SECONDS)
    except (OSError, subprocess.SubprocessError):
        return None
    lines = done.stdout.splitlines()
    commits = [line.split()[-1] for line in lines if line.startswith("# branch.oid ")]
    changed = any(not line.startswith("#") for line in lines)
    return None if not commits or commits[0] == "(initial)" else commits[0] + (" and changes" if changed else "")


def processor() -> str:
    """Its model, where the system tells: results differ in their digits between processors."""
    known = Path("/proc/cpuinfo")
    lines = known.read_text(encoding="utf-8").splitlines() if known.is_file() else []
    models = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return f"{platform.machine()} {models[0] if models else ''}".strip()
