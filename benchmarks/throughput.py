"""The inner loop of `smoothout train` against a plain loop around torchvision's data set and DataLoader, interleaved.

    python benchmarks/throughput.py

cifar10_shallow on 32x32 images drawn at random, with augmentation (pad, crop, flip), batches of 512 in ghost batches of
128. The plain loop has no noise; ours is measured with it (drawn anew for each ghost batch in one block an update) and
without, as it comes and with --channels-last, which is also held against the plain loop in that memory format. Then
steps of some networks in both formats. Writes benchmarks/results/throughput.json.
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
from steps import NETWORKS, Enter, Training, environment, interleaved
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
SAMPLES, BATCH, GHOST, PAIRS = 2048, 512, 128, 7
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
    model: nn.Module,
    loader: DataLoader,
    device: str = "cpu",
    block: Enter = contextlib.nullcontext,
    layout: torch.memory_format = torch.contiguous_format,
) -> Callable[[], None]:
    """An epoch of what anyone would write, each ghost batch in a block."""
    model.to(device, memory_format=layout).train()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9)

    def epoch() -> None:
        total = 0.0
        for batch in loader:
            inputs, targets = (tensor.to(device, non_blocking=True) for tensor in batch)
            inputs = inputs.contiguous(memory_format=layout)
            optimizer.zero_grad()
            for x, y in ghost_batches(inputs, targets, size=GHOST):
                with block():
                    loss = functional.cross_entropy(model(x), y) * (len(y) / len(targets))
                    loss.backward()
                total += loss.item()
            optimizer.step()

    return epoch


def epochs(folder: Path, strength: float, channels_last: bool) -> dict[str, Callable[[], None]]:
    """Ours beside the plain loop, and beside the one in channels_last if ours is."""
    loader = DataLoader(Images(), BATCH, shuffle=True, num_workers=2, drop_last=True, persistent_workers=True)

    def loop(layout: torch.memory_format = torch.contiguous_format) -> Callable[[], None]:
        return plain(models.build("cifar10_shallow", (3, 32, 32), 10, 0), loader, layout=layout)

    mine = ours(folder, model="cifar10_shallow", batch_size=BATCH, strength=strength, channels_last=channels_last)
    found = {"ours": mine, "plain": loop()}
    return found | {"plain, channels_last": loop(torch.channels_last)} if channels_last else found


def formats(name: str) -> dict[str, float]:
    """A step of a network row-major, over the same in channels_last."""
    row_major, channels_last = Training(NETWORKS[name]), Training(NETWORKS[name])
    channels_last.model.to(memory_format=torch.channels_last)
    channels_last.inputs = channels_last.inputs.contiguous(memory_format=torch.channels_last)
    works = {"row-major": row_major.step, "channels_last": channels_last.step}
    ratio = interleaved(works, "channels_last", PAIRS)["row-major"]
    print(f"{name}: row-major / channels_last {ratio}", flush=True)
    return ratio.record()


def main() -> None:
    """Measure the plain loop against ours, and networks in both formats."""
    found: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as place:
        write(Path(place))
        for option in ("", "--channels-last"):
            for noise, strength in (("without noise", 0.0), ("with noise", 0.02)):
                works = epochs(Path(place), strength, option != "")
                ratios = interleaved(works, "ours", PAIRS)
                found[f"{option} {noise}".strip()] = {name: ratio.record() for name, ratio in ratios.items()}
                for name, ratio in ratios.items():
                    print(f"{name} / ours {option} {noise}: {ratio}", flush=True)
    steps = {name: formats(name) for name in ("cifar10_shallow", "resnet-44", "alexnet")}
    record = {"environment": environment(), "plain / ours": found, "row-major / channels_last": steps}
    RESULTS.write_text(json.dumps(record, indent=1) + "\n")


if __name__ == "__main__":
    main()
