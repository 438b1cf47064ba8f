"""Where the time of noise goes inside training steps: milliseconds of entering, drawing anew, leaving, and the kernel.

    python benchmarks/blocks.py

Each ghost batch has noise of its own in one block, as `smoothout train` has it: the block is entered before the first,
draws anew before each further one, and is left after the last. The rest of each is Python: looking through the
parameters, keys, versions. Beside it the two bare copies that a block for each ghost batch would make. Writes
benchmarks/results/blocks.json.
"""

import contextlib
import json
import statistics
import sys
import time
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from overhead import ARMS, copies
from steps import NETWORKS, Training, Walk, blocks, environment, noisy, timed

from smoothout.kernels import on_cpu

RESULTS = Path(__file__).parent / "results" / "blocks.json"
STEPS = {"F1": 15, "alexnet": 4, "transformer": 5}


class Clock:
    """Seconds by name, of which the first third is not counted.

    Args:
        ghosts: Ghost batches of a step.
    """

    def __init__(self, ghosts: int) -> None:
        self._ghosts = ghosts
        self._found: dict[str, list[float]] = defaultdict(list)
        self._passed = 0

    @property
    def _way(self) -> str:
        return "in" if self._passed == 0 else "out" if self._passed == self._ghosts else "redraw"

    def walk(self, walk: Walk) -> Walk:
        """The same, timed."""
        return timed(walk, self._took)

    def _took(self, seconds: float) -> None:
        self._found[self._way].append(seconds)
        self._passed = (self._passed + 1) % (self._ghosts + 1)

    @contextlib.contextmanager
    def kernels(self) -> Iterator[None]:
        """Inside, kernels are timed too."""
        run = on_cpu._Kernel.run

        def timed_run(*arguments: Any) -> None:
            began = time.perf_counter()
            run(*arguments)
            self._found[f"{self._way}, kernel"].append(time.perf_counter() - began)

        on_cpu._Kernel.run = timed_run  # type: ignore[method-assign]
        try:
            yield
        finally:
            on_cpu._Kernel.run = run  # type: ignore[method-assign]

    def milliseconds(self) -> dict[str, float]:
        """Medians."""
        return {name: 1000 * statistics.median(found[len(found) // 3 :]) for name, found in self._found.items()}


def main() -> None:
    """Every arm on some networks."""
    rows: dict[str, dict[str, dict[str, float]]] = {}
    for name, steps in STEPS.items():
        if sys.argv[1:] and name not in sys.argv[1:]:
            continue
        training, rows[name] = Training(NETWORKS[name]), {}
        for arm, make in ARMS.items():
            clock, smoother = Clock(NETWORKS[name].ghosts), make(training.model)
            with clock.kernels():
                for _ in range(steps):
                    training.step(clock.walk(noisy(smoother)), smoother.step)
            rows[name][arm] = clock.milliseconds()
        clock, walk = Clock(NETWORKS[name].ghosts), blocks(copies(training))
        for _ in range(steps):
            training.step(clock.walk(walk))
        rows[name]["two copies"] = clock.milliseconds()
        for arm, row in rows[name].items():
            print(
                f"{name:<12} {arm:<14} {' '.join(f'{way} {value:.2f},' for way, value in row.items())} ms", flush=True
            )
    RESULTS.write_text(json.dumps({"environment": environment(), "milliseconds": rows}, indent=1) + "\n")


if __name__ == "__main__":
    main()
