"""Tasks of one command over the processes that a launcher started, on one machine or several.

Process 0 runs the command and puts its tasks into torch's store. Every process, 0 too, takes the next one that nobody
has taken, so that tasks of unequal length keep all busy. Results go back through the store; process 0 takes those that
are ready between two tasks of its own. No other process needs to see the folder of results.
"""

import contextlib
import functools
import itertools
import pickle
import signal
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any, Protocol, Self, TypeVar

import torch

from smoothout import launch
from smoothout.launch import launched
from smoothout.train import workers
from smoothout.train.device import choose

_CHUNK = 4 << 20  # bytes of a value; the store refuses more than 8 MiB
_OURS = "smoothout/"  # names in a store that others may use, too
_PAUSE = 0.05  # seconds between looks
_SECONDS_TO_END = 5.0  # for which a process that failed, or is done, waits for the others


class Task(Protocol):
    """What processes of several machines can do."""

    @property
    def device(self) -> str:
        """Where process 0 would compute it."""

    def elsewhere(self, device: str, folder: Path) -> Self:
        """The same for another process: on its device, and with the files of :func:`each` in its folder."""


T = TypeVar("T", bound=Task)
R = TypeVar("R")


@dataclass(frozen=True)
class _Work:
    """What process 0 gives out."""

    function: Callable[[Any], Any]
    tasks: Sequence[Any]
    files: Mapping[str, bytes]


def device_of_process(name: str) -> str:
    """The device of ``--device NAME`` for this process, one of its own where several were launched."""
    return str(choose(launched().device(name, torch.cuda.device_count())))


def each(
    function: Callable[[T], R], tasks: Sequence[T], jobs: int, files: Sequence[Path] = ()
) -> Iterator[tuple[T, R]]:
    """Results in the order in which they are ready: of all processes that were launched, or else of so many jobs here.

    After an error or an interrupt in this process, what others have finished still comes before it is raised.

    Args:
        function: Of a module, and pure: whoever calls it gets the same result.
        tasks: What to call it with.
        jobs: See :func:`smoothout.train.workers.each`.
        files: Which other processes need and cannot see.

    Raises:
        Exception: The first that a task raises here.
        RuntimeError: If one is raised in another process; the rest is given up.
    """
    size = launched().size
    if size == 1:
        yield from workers.each(function, tasks, jobs)
        return
    store = _connected()
    store.put("work", _Work(function, tasks, {path.name: path.read_bytes() for path in files}))
    inbox, done = _Inbox(store, size), 0
    with _interrupted_by_terminate():
        try:
            while (index := store.claim()) < len(tasks):
                found = [(index, function(tasks[index])), *inbox.ready()]
                done += len(found)
                yield from ((tasks[number], result) for number, result in found)
                inbox.refuse_errors()
            while done < len(tasks):
                time.sleep(_PAUSE)
                for number, result in inbox.ready():
                    done += 1
                    yield tasks[number], result
                inbox.refuse_errors()
        except GeneratorExit:  # nobody takes more
            raise
        except BaseException:
            with contextlib.suppress(RuntimeError):  # the store may have ended first
                yield from ((tasks[number], result) for number, result in inbox.ready())
            raise


def follow(described: Callable[[Exception], str]) -> int:
    """In a process other than 0: do what there is to do, until nothing is left; returns the exit status.

    Args:
        described: What process 0 is told of an exception.

    Raises:
        Exception: What a task raises, once process 0 knows it and had some seconds to end.
    """
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # Ctrl-C is told by process 0
    store, rank = _connected(), launched().rank
    try:
        _compute(store, rank)
    except Exception as error:
        store.put(f"error/{rank}", described(error))
        store.wait(lambda: store.has("stop"))
        raise
    store.add("finished", 1)
    return 0


def _compute(store: "_Store", rank: int) -> None:
    while not store.has("work"):
        if store.has("stop"):
            return
        time.sleep(_PAUSE)
    work: _Work = store.get("work")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for file, content in work.files.items():
            (folder / file).write_bytes(content)
        device = ""
        for sent in itertools.count():
            index = store.claim()
            if index >= len(work.tasks):
                return
            task = work.tasks[index]
            device = device or _same_kind(task.device)
            store.put(f"result/{rank}/{sent}", (index, work.function(task.elsewhere(device, folder))))


def _same_kind(device: str) -> str:
    """A device of the kind that process 0 has: others round in other ways."""
    return device_of_process("cuda") if torch.device(device).type == "cuda" else device


def meet() -> None:
    """Wait until all processes have started.

    Raises:
        ValueError: If the environment does not say where.
    """
    _connected()


def dismiss(*, wait: bool) -> None:
    """In process 0, at the end of a command: tell the other processes that nothing is left to do; raises nothing.

    Args:
        wait: Some seconds, until they have finished: this process may host the store.
    """
    with contextlib.suppress(RuntimeError):  # the store may have ended first
        store = _connected()
        store.add("next", 1 << 40)
        store.put("stop", None)
        if wait:
            others = launched().size - 1
            store.wait(lambda: store.add("finished", 0) == others)


class _Store:
    """Objects under names, which all processes see."""

    def __init__(self, store: Any) -> None:
        self._store = store

    def put(self, name: str, value: Any) -> None:
        data = pickle.dumps(value)
        pieces = [data[start : start + _CHUNK] for start in range(0, len(data), _CHUNK)]
        for number, piece in enumerate(pieces):
            self._store.set(f"{_OURS}{name}/{number}", piece)
        self._store.set(_OURS + name, str(len(pieces)))  # last: who sees it finds all

    def has(self, name: str) -> bool:
        return bool(self._store.check([_OURS + name]))

    def get(self, name: str) -> Any:
        return pickle.loads(b"".join(self._store.get(key) for key in self._pieces(name)))

    def take(self, name: str) -> Any:
        """Get a value, and remove it."""
        value = self.get(name)
        for key in (*self._pieces(name), _OURS + name):
            self._store.delete_key(key)
        return value

    def _pieces(self, name: str) -> list[str]:
        return [f"{_OURS}{name}/{number}" for number in range(int(self._store.get(_OURS + name)))]

    def add(self, name: str, count: int) -> int:
        return int(self._store.add(_OURS + name, count))

    def claim(self) -> int:
        """The number of the next task, which nobody else gets."""
        return self.add("next", 1) - 1

    def wait(self, met: Callable[[], bool]) -> None:
        """Look for some seconds whether something has come."""
        end = time.monotonic() + _SECONDS_TO_END
        while not met() and time.monotonic() < end:
            time.sleep(_PAUSE)


class _Inbox:
    """What other processes have sent to process 0."""

    def __init__(self, store: _Store, size: int) -> None:
        self._store = store
        self._taken = dict.fromkeys(range(1, size), 0)

    def ready(self) -> list[tuple[int, Any]]:
        """Results that have come since the last call: numbers of tasks, and what they gave."""
        found: list[tuple[int, Any]] = []
        for rank in self._taken:
            while self._store.has(name := f"result/{rank}/{self._taken[rank]}"):
                found.append(self._store.take(name))
                self._taken[rank] += 1
        return found

    def refuse_errors(self) -> None:
        """Raise ``RuntimeError`` if a process has failed."""
        for rank in self._taken:
            if self._store.has(f"error/{rank}"):
                raise RuntimeError(f"process {rank} stopped: {self._store.get(f'error/{rank}')}")


@functools.cache
def _connected() -> _Store:
    """The store of torch that the launcher's environment names."""
    return _Store(launch.meet()[0])


@contextlib.contextmanager
def _interrupted_by_terminate() -> Iterator[None]:
    """Inside, the launcher's SIGTERM, which says that another process failed, is an interrupt: results are kept."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def interrupt(_number: int, _frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
