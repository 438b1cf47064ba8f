"""A bar with the time left on a terminal, and a line now and then elsewhere."""

import contextlib
import time
from collections.abc import Callable, Iterator

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

#: Seconds between lines where there is no terminal.
QUIET = 10.0


@contextlib.contextmanager
def progress(console: Console, what: str) -> Iterator[Callable[[int, int], None]]:
    """Inside, call what this gives with (done, total); an interrupt is told that what is finished is kept."""
    try:
        with _shown(console, what) as tell:
            yield tell
    except KeyboardInterrupt:
        console.print("What is finished is kept; the same command goes on.")
        raise


@contextlib.contextmanager
def _shown(console: Console, what: str) -> Iterator[Callable[[int, int], None]]:
    if console.is_terminal:
        columns = (TextColumn(what), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), TimeRemainingColumn())
        with Progress(*columns, console=console) as bar:
            task = bar.add_task(what, total=None)
            yield lambda done, total: bar.update(task, completed=done, total=total)
        return
    began = last = time.monotonic()
    first: int | None = None

    def tell(done: int, total: int) -> None:
        nonlocal first, last
        now = time.monotonic()
        first = done if first is None else first  # what an earlier start had finished took no time here
        if done > first and (now - last > QUIET):
            last = now
            left = (now - began) / (done - first) * (total - done)
            console.print(f"{done} of {total} {what}, about {left:.0f} s left", markup=False)

    yield tell
