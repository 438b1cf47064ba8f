"""The inner loop of `smoothout train` against a plain loop around torchvision's data set and DataLoader, interleaved.

    python benchmarks/throughput.py

cifar10_shallow on 32x32 images drawn at random, with augmentation (pad, crop, flip), batches of 512 in ghost batches of
128. The plain loop has no noise; ours is measured with it (drawn anew for each ghost batch in one block an update) and
without. Writes benchmarks/results/throughput.json.
"""

import contextlib
import json
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from steps import Enter, environment, interleaved
from torch import nn
from torch.nn import functional
from torch.utils.data import DataLoader
from torchvision import transforms
from torchvision.datasets import CIFAR10

from smoothout import ghost_batches
from smoothout.train import loop, models, passes
from smoothout.train.config import Settings
from smoothout.train.run import prepare

RESULTS = Path(__file__).parent / "results" / "throughput.json"
SAMPLES, BATCH, GHOST, PAIRS = 2048, 512, 128, 9
MEAN, STD = (0.491, 0.482, 0.447), (0.247, 0.243, 0.262)


def pictures(samples: int) -> tuple[np.ndarray, list[int]]:
    """Images, (samples, 32, 32, 3) bytes, and their classes."""
    drawn = np.random.default_rng(0).integers(0, 256, (samples, 32, 32, 3), dtype=np.uint8)
    return drawn, [index % 10 for index in range(samples)]


def write(folder: Path, samples: int = SAMPLES) -> None:
    """The same as a tree of files, train/CLASS/*, and a few for the other splits."""
    for split, count in (("train", samples), ("val", 10), ("test", 10)):
        for index, (picture, label) in enumerate(zip(*pictures(count), strict=True)):
            place = folder / split / str(label)
            place.mkdir(parents=True, exist_ok=True)
            Image.fromarray(picture).save(place / f"{index}.png")


class Images(CIFAR10):
    """The same for torchvision, whose own files are not needed."""

    def __init__(self, samples: int = SAMPLES) -> None:
        self.data, self.targets = pictures(samples)
        steps = [transforms.RandomCrop(32, padding=4), transforms.RandomHorizontalFlip(), transforms.ToTensor()]
        self.transform = transforms.Compose([*steps, transforms.Normalize(MEAN, STD)])
        self.target_transform = None


def ours(folder: Path, **settings: Any) -> Callable[[], None]:
    """An epoch of `smoothout train`, without evaluation."""
    run = prepare(
        Settings().replace(
            dataset="imagefolder",
            data_dir=folder,
            input_size=32,
            ghost_batch_size=GHOST,
            lr=0.01,
            epochs=1000,
            **settings,
        )
    )

    def epoch() -> None:
        seen = loop.Seen()
        run.model.train()
        with passes.normalised(run.network, run.settings.batches):
            for update, part in enumerate(loop._updates(run, 0)):
                loop._update(run, seen, update, part)
        seen.risk()

    return epoch


def plain(
    model: nn.Module, loader: DataLoader, device: str = "cpu", block: Enter = contextlib.nullcontext
) -> Callable[[], None]:
    """An epoch of what anyone would write, each ghost batch in a block."""
    model.to(device).train()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9)

    def epoch() -> None:
        total = 0.0
        for batch in loader:
            inputs, targets = (tensor.to(device, non_blocking=True) for tensor in batch)
            optimizer.zero_grad()
            for x, y in ghost_batches(inputs, targets, size=GHOST):
                with block():
                    loss = functional.cross_entropy(model(x), y) * (len(y) / len(targets))
                    loss.backward()
                total += loss.item()
            optimizer.step()

    return epoch


def main() -> None:
    """Measure the plain loop against ours."""
    found: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as place:
        write(Path(place))
        for name, strength in (("without noise", 0.0), ("with noise", 0.02)):
            mine = ours(Path(place), model="cifar10_shallow", batch_size=BATCH, strength=strength)
            loader = DataLoader(Images(), BATCH, shuffle=True, num_workers=2, drop_last=True, persistent_workers=True)
            usual = plain(models.build("cifar10_shallow", (3, 32, 32), 10, 0), loader)
            works = {"plain": usual, "ours": mine}
            ratio = interleaved(works, "ours", PAIRS)["plain"]
            found[name] = ratio.record()
            print(f"plain loop / ours {name}: {ratio}, {SAMPLES / ratio.seconds:.0f} samples a second", flush=True)
    RESULTS.write_text(json.dumps({"environment": environment(), "plain / ours": found}, indent=1) + "\n")


if __name__ == "__main__":
    main()
