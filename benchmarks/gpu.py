"""What the noise costs on a GPU: steps with noise against the same steps without, interleaved in one run.

    python benchmarks/gpu.py [ROW ...]

resnet-44 (CIFAR) in ghost batches of 128, a transformer, and resnet-50 at 224 pixels in bfloat16: eager, compiled, and
with forward and backward captured in a CUDA graph, each ghost batch with noise of its own in one block, as `smoothout
train` has it; beside them noise as anyone would write it, SAM, two bare copies of
the weights, and how a block grows with weights and tensors. Writes benchmarks/results/gpu.json, and keeps there what is
not among the rows that are named, such as "resnet-44, eager" or "growth".
"""

import json
import statistics
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torchvision
from growth import measure as grown
from overhead import ARMS, Arm, arm, copies
from steps import Network, Training, Transformer, Walk, blocks, environment, interleaved, naive, sam, seconds
from torch import nn

from smoothout.train import models

RESULTS = Path(__file__).parent / "results" / "gpu.json"
Works = dict[str, Arm | Callable[[], None]]
STEPS = 3  # of a network, from one wait for the device to the next
RESNET44 = Network("resnet-44", lambda: models.build("resnet", (3, 32, 32), 10, 0, config={"depth": 44}), (3, 32, 32), 128, 4, 25)  # fmt: skip  # noqa: E501
TRANSFORMER = Network("transformer", Transformer, (64, 256), 128, 4, 31)
RESNET50 = Network("resnet-50", lambda: torchvision.models.resnet50(num_classes=10), (3, 224, 224), 128, 2, 5)


def waited(work: Callable[[], None], times: int = 1) -> Callable[[], None]:
    """So often, until the device is done."""

    def timed() -> None:
        for _ in range(times):
            work()
        torch.cuda.synchronize()

    return timed


def arms(training: Training) -> Works:
    """Steps of one model, plain and with noise; plain ones twice, to see what steps differ by without a reason."""
    works: Works = {name: arm(training, make) for name, make in ARMS.items()}
    works["two copies"] = Arm(training, blocks(copies(training)))
    return works | {"plain again": training.step, "plain": training.step}


def rivals(network: Network, half: bool) -> Works:
    """Steps of models of their own."""
    first = Training(network, "cuda", half)
    return {
        "naive": Arm(first, blocks(naive(first.model))),
        "SAM": sam(Training(network, "cuda", half), adaptive=False),
    }


def compiled(network: Network, half: bool) -> Training:
    """A training whose network goes through torch.compile."""
    training = Training(network, "cuda", half)
    training.model.compile()
    return training


class Captured(Training):
    """A training whose forward and backward pass of a ghost batch is one CUDA graph."""

    def __init__(self, network: Network, half: bool) -> None:
        super().__init__(network, "cuda", half)
        self._x, self._y = (tensor[: network.ghost].clone() for tensor in (self.inputs, self.targets))
        side = torch.cuda.Stream()
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):
            for _ in range(3):
                super().learn(self._x, self._y)
        torch.cuda.current_stream().wait_stream(side)
        self.optimizer.zero_grad(set_to_none=False)
        self._graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(self._graph):
            super().learn(self._x, self._y)

    def learn(self, x: torch.Tensor, y: torch.Tensor) -> None:
        """Of the graph's own gradients, which must stay where they are."""
        self._x.copy_(x)
        self._y.copy_(y)
        self._graph.replay()

    def step(self, walk: Walk = iter, after: Callable[[], None] = lambda: None) -> None:
        """Everything from zero_grad to optimizer.step."""
        self.optimizer.zero_grad(set_to_none=False)
        self.backward(walk)
        self.optimizer.step()
        after()


def measured(network: Network, works: Works, title: str) -> dict[str, Any]:
    """Ratios to the plain step, and what blocks take of the host's time in a step over the rest of it.

    Training does not wait for the device after each step; after a few it is waited for here, to take the time.
    """
    found = {}
    timed = {name: waited(work.step if isinstance(work, Arm) else work, STEPS) for name, work in works.items()}
    for name, ratio in interleaved(timed, "plain", network.rounds).items():
        work, line = works[name], f"{title:<24} {name:<14} {ratio} times plain SGD"
        found[name] = ratio.record() | {"seconds": ratio.seconds / STEPS}
        if isinstance(work, Arm):
            found[name]["by blocks"] = 1 + statistics.median(work.shares[2 * STEPS :])
            line += f", by the blocks {found[name]['by blocks']:.3f}"
        print(f"{line}, {1000 * found[name]['seconds']:.2f} ms", flush=True)
    return found


def bandwidth() -> float:
    """Bytes a second of a large copy, read and written."""
    source = torch.empty(1 << 30, dtype=torch.uint8, device="cuda")
    to = torch.empty_like(source)
    times = [seconds(waited(lambda: to.copy_(source))) for _ in range(9)]
    return 2 * source.numel() / statistics.median(times)


def growth() -> dict[str, Any]:
    """Blocks of many weights, and of many tensors."""
    rows: dict[str, Any] = {"bytes a second": bandwidth(), "weights": [], "tensors": []}
    for count in (100_000, 1_000_000, 10_000_000, 100_000_000, 300_000_000):
        rows["weights"].append(grown([("w", nn.Parameter(torch.randn(count, device="cuda")))], torch.cuda.synchronize))
        print(rows["weights"][-1], flush=True)
    for tensors in (1, 16, 256, 4096):
        pieces = [(str(i), nn.Parameter(torch.randn((1 << 24) // tensors, device="cuda"))) for i in range(tensors)]
        rows["tensors"].append(grown(pieces, torch.cuda.synchronize))
        print(rows["tensors"][-1], flush=True)
    return rows


def rows() -> dict[str, Callable[[], dict[str, Any]]]:
    """What is measured, by name."""
    found: dict[str, Callable[[], dict[str, Any]]] = {}

    def add(network: Network, how: str, works: Callable[[], Works]) -> None:
        name = f"{network.name}, {how}"
        found[name] = lambda: measured(network, works(), name)

    for network, half in ((RESNET44, False), (TRANSFORMER, False), (RESNET50, True)):
        add(
            network,
            "eager",
            lambda network=network, half=half: arms(Training(network, "cuda", half)) | rivals(network, half),
        )
    for network in (RESNET44, TRANSFORMER):
        add(network, "CUDA graph", lambda network=network: arms(Captured(network, False)))
        add(network, "compiled", lambda network=network: arms(compiled(network, False)))
    return found | {"growth": growth}


def main() -> None:
    """Measure everything, or the rows that are named, and write after each."""
    before = json.loads(RESULTS.read_text()) if sys.argv[1:] and RESULTS.is_file() else {}
    found: dict[str, Any] = before | {"environment": environment()}
    for name, measure in rows().items():
        if not sys.argv[1:] or name in sys.argv[1:]:
            found[name] = measure()
            RESULTS.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
