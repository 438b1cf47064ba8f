"""A step of ours against the same step of what users would pick instead, interleaved in one run.

    python benchmarks/peers.py

The F1 MLP in ghost batches, as in benchmarks/overhead.py; ours draws anew for each in one block, as `smoothout train`
does. The naive way draws noise by uniform_ for each tensor, keeps
a clone and copies it back; SAM and ASAM (pytorch-optimizer) make two passes over all ghost batches; IVON (ivon-opt)
draws a sample of the weights for each. Needs the packages of the extra `bench`. Writes benchmarks/results/peers.json.
"""

import json
from collections.abc import Callable
from pathlib import Path

from ivon import IVON
from steps import NETWORKS, Training, blocks, environment, interleaved, naive, noisy, sam

from smoothout import SmoothOut

RESULTS = Path(__file__).parent / "results" / "peers.json"


def ours(training: Training) -> Callable[[], None]:
    """SmoothOut."""
    smoother = SmoothOut(training.model, 0.02)
    walk = noisy(smoother)
    return lambda: training.step(walk, smoother.step)


def naive_step(training: Training) -> Callable[[], None]:
    """What anyone would write."""
    walk = blocks(naive(training.model))
    return lambda: training.step(walk)


def ivon(training: Training) -> Callable[[], None]:
    """IVON, with a sample of the weights for each ghost batch."""
    optimizer = IVON(training.model.parameters(), lr=0.01, ess=50_000)

    walk = blocks(lambda: optimizer.sampled_params(train=True))

    def step() -> None:
        optimizer.zero_grad()
        training.backward(walk)
        optimizer.step()

    return step


def main() -> None:
    """Measure ours against each."""
    network = NETWORKS["F1"]
    works = {
        "naive": naive_step(Training(network)),
        "SAM": sam(Training(network), adaptive=False),
        "ASAM": sam(Training(network), adaptive=True),
        "IVON": ivon(Training(network)),
        "ours": ours(Training(network)),
    }
    found = {}
    for name, ratio in interleaved(works, "ours", 31).items():
        found[name] = ratio.record()
        print(f"{name:<8} {ratio} times ours: ours / {name} {1 / ratio.median:.3f}", flush=True)
    RESULTS.write_text(json.dumps({"environment": environment(), "times ours": found}, indent=1) + "\n")


if __name__ == "__main__":
    main()
