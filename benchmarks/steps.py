"""What benchmarks of a training step share: networks, the step, and pairs of steps interleaved in one run."""

import contextlib
import os
import platform
import statistics
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass
from typing import Any

import torch
from scipy.stats import binom
from torch import Tensor, nn
from torch.nn import functional

from smoothout import SmoothOut, ghost_batches
from smoothout.train import models

Enter = Callable[[], AbstractContextManager[Any]]
Piece = tuple[Tensor, Tensor]
#: Walks over the ghost batches of a step, and changes the weights on its way.
Walk = Callable[[Iterable[Piece]], Iterator[Piece]]


@dataclass(frozen=True)
class Network:
    """A network and its batch.

    Attributes:
        name: In tables.
        build: Makes it.
        input_shape: Of a sample.
        ghost: Samples of a ghost batch.
        ghosts: Ghost batches of a step.
        rounds: Of steps that are measured.
    """

    name: str
    build: Callable[[], nn.Module]
    input_shape: tuple[int, ...]
    ghost: int
    ghosts: int
    rounds: int

    def batch(self) -> tuple[Tensor, Tensor]:
        """Inputs and classes drawn at random."""
        generator = torch.Generator().manual_seed(0)
        samples = self.ghost * self.ghosts
        return (
            torch.randn(samples, *self.input_shape, generator=generator),
            torch.randint(0, 10, (samples,), generator=generator),
        )


class Transformer(nn.Module):
    """An encoder of 6 layers and width 256 over 64 tokens, with a linear layer on their mean."""

    def __init__(self) -> None:
        super().__init__()
        layer = nn.TransformerEncoderLayer(256, 4, 1024, dropout=0.0, batch_first=True)
        self.encoder = nn.TransformerEncoder(layer, 6)
        self.head = nn.Linear(256, 10)

    def forward(self, tokens: Tensor) -> Tensor:
        """Logits."""
        logits: Tensor = self.head(self.encoder(tokens).mean(dim=1))
        return logits


def _model(name: str, shape: tuple[int, ...], **config: Any) -> Callable[[], nn.Module]:
    return lambda: models.build(name, shape, 10, 0, config=config or None)


NETWORKS = {
    network.name: network
    for network in (
        Network("F1", _model("mnist_f1", (784,)), (784,), 128, 16, 121),
        Network("cifar10_shallow", _model("cifar10_shallow", (3, 32, 32)), (3, 32, 32), 128, 2, 15),
        Network("resnet-44", _model("resnet", (3, 32, 32), depth=44), (3, 32, 32), 128, 2, 9),
        Network("alexnet", _model("alexnet", (3, 224, 224)), (3, 224, 224), 32, 2, 5),
        Network("transformer", Transformer, (64, 256), 32, 2, 9),
    )
}


class Training:
    """A model, its optimizer and its batch; with ``half`` forward passes are in bfloat16 by autocast."""

    def __init__(self, network: Network, device: str = "cpu", half: bool = False) -> None:
        torch.manual_seed(0)
        self.network = network
        self.model = network.build().to(device)
        self.optimizer: Any = torch.optim.SGD(self.model.parameters(), lr=0.01, momentum=0.9)
        self.inputs, self.targets = (tensor.to(device) for tensor in network.batch())
        self.half = half

    def learn(self, x: Tensor, y: Tensor) -> None:
        """Forward and backward of a ghost batch."""
        with torch.autocast(x.device.type, torch.bfloat16, enabled=self.half):
            loss = functional.cross_entropy(self.model(x), y) / self.network.ghosts
        loss.backward()

    def backward(self, walk: Walk = iter) -> None:
        """Forward and backward of all ghost batches."""
        for x, y in walk(ghost_batches(self.inputs, self.targets, size=self.network.ghost)):
            self.learn(x, y)

    def step(self, walk: Walk = iter, after: Callable[[], None] = lambda: None) -> None:
        """Everything from zero_grad to optimizer.step."""
        self.optimizer.zero_grad()
        self.backward(walk)
        self.optimizer.step()
        after()


def blocks(enter: Enter) -> Walk:
    """A block around each ghost batch."""

    def walk(pieces: Iterable[Piece]) -> Iterator[Piece]:
        for piece in pieces:
            with enter():
                yield piece

    return walk


def noisy(smoother: SmoothOut) -> Walk:
    """Noise of its own for each ghost batch, in one block, as `smoothout train` has it."""

    def walk(pieces: Iterable[Piece]) -> Iterator[Piece]:
        with smoother.perturbed() as noise:
            yield from noise.each(pieces)

    return walk


def timed(walk: Walk, took: Callable[[float], None]) -> Walk:
    """The same, which tells what it takes by itself: before the first ghost batch, between two, after the last."""

    def with_clock(pieces: Iterable[Piece]) -> Iterator[Piece]:
        own = walk(list(pieces))
        while True:
            began = time.perf_counter()
            piece = next(own, None)
            took(time.perf_counter() - began)
            if piece is None:
                return
            yield piece

    return with_clock


def seconds(work: Callable[[], None]) -> float:
    """Seconds that it takes."""
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


@dataclass(frozen=True)
class Ratio:
    """Of the times of two steps of each round.

    Attributes:
        median: Of the ratios.
        low, high: Ends of an interval that holds the median of such ratios with 95 %: order statistics, binomial.
        seconds: Median of the step that is divided by.
    """

    median: float
    low: float
    high: float
    seconds: float

    def record(self) -> dict[str, float]:
        """For a file."""
        return asdict(self)

    def __str__(self) -> str:
        return f"{self.median:.3f} ({self.low:.3f} to {self.high:.3f})"


def interleaved(works: dict[str, Callable[[], None]], over: str, rounds: int) -> dict[str, Ratio]:
    """Ratios of every work to the one ``over``; a round does each once, beginning with another one each time.

    Two rounds before are not measured.
    """
    names, times = list(works), {name: [0.0] * rounds for name in works}
    for index in range(-2, rounds):
        for place in range(len(names)):
            name = names[(place + index) % len(names)]
            took = seconds(works[name])
            if index >= 0:
                times[name][index] = took
    return {name: ratio(times[name], times[over]) for name in names if name != over}


def ratio(above: list[float], below: list[float]) -> Ratio:
    found = sorted(a / b for a, b in zip(above, below, strict=True))
    end = max(1, int(binom.ppf(0.025, len(found), 0.5)))  # the interval goes from the end-th to the end-th from above
    return Ratio(statistics.median(found), found[end - 1], found[-end], statistics.median(below))


def naive(model: nn.Module) -> Enter:
    """Noise as anyone would write it: a clone, a draw and a copy for each tensor."""
    parameters = list(model.parameters())

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

    return block


def sam(training: Training, adaptive: bool) -> Callable[[], None]:
    """A step of SAM or ASAM, each of whose two passes is over all ghost batches; needs pytorch-optimizer."""
    from pytorch_optimizer import SAM

    optimizer = SAM(
        training.model.parameters(), torch.optim.SGD, rho=0.05, adaptive=adaptive, lr=0.01, momentum=0.9, foreach=True
    )

    def closure() -> None:
        optimizer.zero_grad()
        training.backward()

    def step() -> None:
        closure()
        optimizer.step(closure)

    return step


def environment() -> dict[str, Any]:
    """Where it was measured."""
    gpu = {"gpu": torch.cuda.get_device_name()} if torch.cuda.is_available() else {}
    return gpu | {
        "torch": torch.__version__,
        "python": platform.python_version(),
        "machine": platform.machine(),
        "instructions": torch.backends.cpu.get_cpu_capability(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
    }
