"""Images in memory: resize once, normalise, and crop and flip per sample, a batch at a time, on their device."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor
from torch.nn import functional

from smoothout.train.config import Data
from smoothout.train.data.splits import DataSet, Resident, as_is, cut_holdout

#: Of ImageNet, also used for CIFAR by the original program.
IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
#: What the original program fills the padding of colour images with.
GREY = 127


def normaliser(mean: Sequence[float], std: Sequence[float], white: int = 255) -> Callable[[Tensor], Tensor]:
    """Bytes (B, C, H, W) to floats (x / white - mean) / std, per channel."""

    def normalise(images: Tensor) -> Tensor:
        means = torch.tensor(mean, device=images.device).view(-1, 1, 1)
        stds = torch.tensor(std, device=images.device).view(-1, 1, 1)
        return (images.float() / white - means) / stds

    return normalise


@dataclass(frozen=True)
class PadCropFlip:
    """Pad each image, crop it to its size at a random place, and flip half of them.

    Attributes:
        pad: Pixels on every side.
        fill: Value of the padding.
    """

    pad: int
    fill: int

    def __call__(self, images: Tensor) -> Tensor:
        """Images (B, C, H, W) of the same type; draws from torch's global generator."""
        count, _, height, width = images.shape
        device = images.device
        places = torch.randint(0, 2 * self.pad + 1, (2, count, 1)).to(device)
        flip = (torch.rand(count, 1) < 0.5).to(device)
        rows = places[0] + torch.arange(height, device=device)
        columns = torch.arange(width, device=device).expand(count, -1)
        columns = places[1] + torch.where(flip, columns.flip(1), columns)
        padded = functional.pad(images, (self.pad,) * 4, value=self.fill)
        sample = torch.arange(count, device=device)[:, None, None]
        # Indexing around the channel dimension puts it last.
        return padded[sample, :, rows[:, :, None], columns[:, None, :]].permute(0, 3, 1, 2).contiguous()


def resize(split: Resident, side: int | None) -> Resident:
    """Images whose shorter side is brought to ``side``, and their central square; None leaves them as they are."""
    if side is None or split.inputs.shape[2:] == (side, side):
        return split
    height, width = split.inputs.shape[2:]
    shape = [max(side, round(side * length / min(height, width))) for length in (height, width)]
    images = functional.interpolate(split.inputs, shape, mode="bilinear", antialias=True)
    top, left = (shape[0] - side) // 2, (shape[1] - side) // 2
    return Resident(images[:, :, top : top + side, left : left + side].contiguous(), split.targets)


def image_set(
    settings: Data,
    seed: int,
    train: Resident,
    test: Resident,
    classes: int,
    normalise: Callable[[Tensor], Tensor],
    augment: PadCropFlip | None,
) -> DataSet:
    """A data set of images in memory: resized if that is wished, the padding with them, and the hold-out cut."""
    own_side = train.inputs.shape[-1]
    train, test = resize(train, settings.input_size), resize(test, settings.input_size)
    if augment is not None:
        augment = replace(augment, pad=max(1, round(augment.pad * train.inputs.shape[-1] / own_side)))
    kept, held_out = cut_holdout(len(train), settings.holdout, seed)
    return DataSet(
        train=train.take(kept),
        holdout=train.take(held_out),
        test=test,
        input_shape=tuple(train.inputs.shape[1:]),
        classes=classes,
        normalise=normalise,
        augment=augment if augment is not None and settings.augment else as_is,
    )
