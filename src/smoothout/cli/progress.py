"""A bar with the time left on a terminal, and a line now and then elsewhere."""

import contextlib
import time
from collections.abc import Callable, Iterator

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

#: Seconds between lines where there is no terminal.
QUIET = 10.0
#: Results before the time left is told.
SETTLED = 4


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
    stamps: list[tuple[float, int]] = []
    last = time.monotonic()

    def tell(done: int, total: int) -> None:
        nonlocal last
        now = time.monotonic()
        stamps.append((now, done))
        # The first stamp is what an earlier start had finished, the second has this one's start-up in it.
        if len(stamps) > SETTLED and now - last > QUIET:
            last = now
            began, first = stamps[1]
            left = (now - began) / max(1, done - first) * (total - done)
            console.print(f"{done} of {total} {what}, about {left:.0f} s left", markup=False)

    yield tell
