"""Share of a training step that goes to the loader: taking a batch's samples, crops, flips and normalisation.

    python benchmarks/loader.py

Random images, as many and as large as CIFAR-10's, in the classes that hold CIFAR-10, batches in ghost batches of 128. A
step is plain SGD without noise, loader included, so that the share is the largest that there is. Pairs of the loader
alone and a whole step, interleaved. Writes benchmarks/results/loader.json.
"""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from steps import NETWORKS, Network, environment, interleaved
from torch import Tensor
from torch.nn import functional

from smoothout import ghost_batches
from smoothout.large_batch import partition
from smoothout.train.config import Data
from smoothout.train.data.images import GREY, IMAGENET_MEAN, IMAGENET_STD, PadCropFlip, image_set, normaliser
from smoothout.train.data.splits import DataSet, Resident

RESULTS = Path(__file__).parent / "results" / "loader.json"
SAMPLES, TEST_SAMPLES = 50_000, 10_000
PAIRS = {"cifar10_shallow": 15, "resnet-44": 7}


def images() -> DataSet:
    """A data set like CIFAR-10's."""
    generator = torch.Generator().manual_seed(0)

    def split(samples: int) -> Resident:
        drawn = torch.randint(0, 256, (samples, 3, 32, 32), dtype=torch.uint8, generator=generator)
        return Resident(drawn, torch.arange(samples) % 10)

    normalise, augment = normaliser(IMAGENET_MEAN, IMAGENET_STD), PadCropFlip(pad=4, fill=GREY)
    return image_set(Data(), 0, split(SAMPLES), split(TEST_SAMPLES), 10, normalise, augment)


def works(network: Network, dataset: DataSet) -> dict[str, Callable[[], None]]:
    """The loader alone, and a whole step."""
    model = network.build()
    optimizer: Any = torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9)

    def batches() -> Iterator[tuple[Tensor, Tensor]]:
        while True:
            order = torch.randperm(len(dataset.train))
            yield from dataset.train.batches(partition(len(order), network.ghost * network.ghosts), order)

    endless = batches()

    def loaded() -> Iterator[tuple[Tensor, Tensor]]:
        for x, y in ghost_batches(*next(endless), size=network.ghost):
            yield dataset.normalise(dataset.augment(x)), y

    def load() -> None:
        for _ in loaded():
            pass

    def step() -> None:
        optimizer.zero_grad()
        for x, y in loaded():
            (functional.cross_entropy(model(x), y) / network.ghosts).backward()
        optimizer.step()

    return {"loader": load, "step": step}


def main() -> None:
    """Measure both networks."""
    torch.manual_seed(0)
    dataset, shares = images(), {}
    for name, pairs in PAIRS.items():
        [ratio] = interleaved(works(NETWORKS[name], dataset), "step", pairs).values()
        shares[name] = ratio.record()
        milliseconds = 1000 * ratio.median * ratio.seconds
        print(f"loader / step of {name}: {ratio}, about {milliseconds:.1f} ms of {1000 * ratio.seconds:.0f} ms")
    RESULTS.write_text(json.dumps({"environment": environment(), "loader / step": shares}, indent=1) + "\n")


if __name__ == "__main__":
    main()
