"""Worker processes on one machine."""

import multiprocessing
import os
import signal
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from typing import TypeVar

import torch

T = TypeVar("T")
R = TypeVar("R")


def executor(workers: int, preload: str) -> ProcessPoolExecutor:
    """Processes that share the cores; ``preload`` is the module that they run functions of."""
    # A server that has imported torch once, in seconds, forks workers in no time.
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([preload])
    threads = max(1, (os.cpu_count() or 1) // workers)
    pool = ProcessPoolExecutor(workers, mp_context=context, initializer=_start, initargs=(threads,))
    pool.submit(torch.get_num_threads)  # starts the server, which imports while this process goes on
    return pool


def _start(threads: int) -> None:
    torch.set_num_threads(threads)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the process that reads the keyboard


def stop(pool: ProcessPoolExecutor) -> None:
    """End the processes now, whatever they are doing."""
    pool.shutdown(wait=False, cancel_futures=True)
    for process in multiprocessing.active_children():
        process.terminate()


def each(function: Callable[[T], R], tasks: Sequence[T], workers: int) -> Iterator[tuple[T, R]]:
    """Results of a function, in the order in which they are ready; with one worker in this process.

    Raises:
        Exception: The first that a task raises; the rest is given up.
    """
    if workers == 1 or len(tasks) < 2:
        for task in tasks:
            yield task, function(task)
        return
    pool = executor(min(workers, len(tasks)), function.__module__)
    try:
        futures = {pool.submit(function, task): task for task in tasks}
        for future in as_completed(futures):
            error = future.exception()
            if error is not None:
                raise error  # here, where the command looks for the package's own errors
            yield futures.pop(future), future.result()
    except BaseException:
        stop(pool)
        raise
    pool.shutdown()
