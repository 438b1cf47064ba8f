"""Where a block's time goes, inside training steps: milliseconds of the ways in and out, and of the kernel in each.

    python benchmarks/blocks.py

The rest of each way is Python: looking through the parameters, keys, versions. Beside it the two bare copies that any
exact restore in place makes. Writes benchmarks/results/blocks.json.
"""

import contextlib
import json
import statistics
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

from overhead import ARMS, copies
from steps import NETWORKS, Enter, Training, environment, seconds

from smoothout.kernels import on_cpu

RESULTS = Path(__file__).parent / "results" / "blocks.json"
STEPS = {"F1": 15, "alexnet": 4, "transformer": 5}


class Clock:
    """Seconds by name, of which the first third is not counted."""

    def __init__(self) -> None:
        self._found: dict[str, list[float]] = defaultdict(list)
        self.way = ""

    def blocks(self, enter: Enter) -> Enter:
        """Blocks whose ways are timed."""

        @contextlib.contextmanager
        def block() -> Iterator[None]:
            with contextlib.ExitStack() as stack:
                self.way = "in"
                self._found["in"].append(seconds(lambda: stack.enter_context(enter())))
                yield
                self.way = "out"
                self._found["out"].append(seconds(stack.close))

        return block

    @contextlib.contextmanager
    def kernels(self) -> Iterator[None]:
        """Inside, kernels are timed too."""
        run = on_cpu._Kernel.run

        def timed(kernel: on_cpu._Kernel, job: int, threads: int) -> None:
            self._found[f"{self.way}, kernel"].append(seconds(lambda: run(kernel, job, threads)))

        on_cpu._Kernel.run = timed  # type: ignore[method-assign]
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
        training, rows[name] = Training(NETWORKS[name]), {}
        for arm, make in ARMS.items():
            clock, smoother = Clock(), make(training.model)
            with clock.kernels():
                for _ in range(steps):
                    training.step(clock.blocks(smoother.perturbed), smoother.step)
            rows[name][arm] = clock.milliseconds()
        clock, block = Clock(), copies(training)
        for _ in range(steps):
            training.step(clock.blocks(block))
        rows[name]["two copies"] = clock.milliseconds()
        for arm, row in rows[name].items():
            print(
                f"{name:<12} {arm:<14} {' '.join(f'{way} {value:.2f},' for way, value in row.items())} ms", flush=True
            )
    RESULTS.write_text(json.dumps({"environment": environment(), "milliseconds": rows}, indent=1) + "\n")


if __name__ == "__main__":
    main()
