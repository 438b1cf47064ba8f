"""Worker processes on one machine."""

import contextlib
import multiprocessing.connection
import os
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from typing import Any, TypeVar

import torch

T = TypeVar("T")
R = TypeVar("R")
_SECONDS_TO_END = 2.0


@contextlib.contextmanager
def processes(workers: int, preload: str) -> Iterator[ProcessPoolExecutor]:
    """Processes that share the cores, ended at once if an exception leaves the context.

    Args:
        workers: How many.
        preload: The module that they run functions of.
    """
    # A server that has imported torch once, in seconds, forks workers in no time.
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([preload])
    threads = max(1, torch.get_num_threads() // workers)  # of the cores, or of what OMP_NUM_THREADS allows
    others = set(multiprocessing.active_children())
    pool = ProcessPoolExecutor(workers, mp_context=context, initializer=_start, initargs=(threads,))
    pool.submit(torch.get_num_threads)  # starts the server, which imports while this process goes on
    try:
        yield pool
    except BaseException:
        pool.shutdown(wait=False, cancel_futures=True)
        ours = set(multiprocessing.active_children()) - others
        for process in ours:
            process.terminate()
        for process in ours:
            process.join(_SECONDS_TO_END)
        raise
    pool.shutdown()


def _start(threads: int) -> None:
    torch.set_num_threads(threads)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the process that reads the keyboard
    parent = multiprocessing.parent_process()
    if parent is not None:
        threading.Thread(target=_end_with, args=(parent,), daemon=True).start()


def _end_with(parent: Any) -> None:
    """A process that was killed cannot end its workers, which would wait for ever."""
    multiprocessing.connection.wait([parent.sentinel])
    os._exit(1)


def each(function: Callable[[T], R], tasks: Sequence[T], workers: int) -> Iterator[tuple[T, R]]:
    """Results of a function, in the order in which they are ready; with one worker in this process.

    Raises:
        Exception: The first that a task raises; the rest is given up.
    """
    if workers == 1 or len(tasks) < 2:
        for task in tasks:
            yield task, function(task)
        return
    with processes(min(workers, len(tasks)), function.__module__) as pool:
        futures = {pool.submit(function, task): task for task in tasks}
        for future in as_completed(futures):
            error = future.exception()
            if error is not None:
                raise error  # here, where the command looks for the package's own errors
            yield futures.pop(future), future.result()
