"""A step of ours against the same step of what users would pick instead, interleaved in one run.

    python benchmarks/peers.py

The F1 MLP in ghost batches, as in benchmarks/overhead.py. The naive way draws noise by uniform_ for each tensor, keeps
a clone and copies it back; SAM and ASAM (pytorch-optimizer) make two passes over all ghost batches; IVON (ivon-opt)
draws a sample of the weights for each. Needs the packages of the extra `bench`. Writes benchmarks/results/peers.json.
"""

import contextlib
import json
from collections.abc import Callable, Iterator
from pathlib import Path

import torch
from ivon import IVON
from pytorch_optimizer import SAM
from steps import NETWORKS, Training, environment, interleaved

from smoothout import SmoothOut

RESULTS = Path(__file__).parent / "results" / "peers.json"


def ours(training: Training) -> Callable[[], None]:
    """SmoothOut."""
    smoother = SmoothOut(training.model, 0.02)
    return lambda: training.step(smoother.perturbed, smoother.step)


def naive(training: Training) -> Callable[[], None]:
    """What anyone would write."""
    parameters = list(training.model.parameters())

    @contextlib.contextmanager
    def block() -> Iterator[None]:
        with torch.no_grad():
            clones = [p.clone() for p in parameters]
            for p in parameters:
                p.add_(torch.empty_like(p).uniform_(-0.02, 0.02))
        yield
        with torch.no_grad():
            for p, clone in zip(parameters, clones, strict=True):
                p.copy_(clone)

    return lambda: training.step(block)


def sam(training: Training, adaptive: bool) -> Callable[[], None]:
    """SAM or ASAM, each of whose two passes is over all ghost batches."""
    optimizer = SAM(
        training.model.parameters(), torch.optim.SGD, rho=0.05, adaptive=adaptive, lr=0.01, momentum=0.9, foreach=True
    )

    def closure() -> None:
        optimizer.zero_grad()
        training.backward(contextlib.nullcontext)

    def step() -> None:
        closure()
        optimizer.step(closure)

    return step


def ivon(training: Training) -> Callable[[], None]:
    """IVON, with a sample of the weights for each ghost batch."""
    optimizer = IVON(training.model.parameters(), lr=0.01, ess=50_000)

    def step() -> None:
        optimizer.zero_grad()
        training.backward(lambda: optimizer.sampled_params(train=True))
        optimizer.step()

    return step


def main() -> None:
    """Measure ours against each."""
    network = NETWORKS["F1"]
    works = {
        "naive": naive(Training(network)),
        "SAM": sam(Training(network), adaptive=False),
        "ASAM": sam(Training(network), adaptive=True),
        "IVON": ivon(Training(network)),
        "ours": ours(Training(network)),
    }
    found = {}
    for name, ratio in interleaved(works, "ours", network.pairs):
        found[name] = ratio.record()
        print(f"{name:<8} {ratio} times ours: ours / {name} {1 / ratio.median:.3f}", flush=True)
    RESULTS.write_text(json.dumps({"environment": environment(), "times ours": found}, indent=1) + "\n")


if __name__ == "__main__":
    main()
