"""Images in memory: normalise, and crop and flip per sample, a batch at a time, on their device."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

#: Of ImageNet, also used for CIFAR by the original program.
IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def normaliser(mean: Sequence[float], std: Sequence[float]) -> Callable[[Tensor], Tensor]:
    """Bytes (B, C, H, W) to floats (x / 255 - mean) / std, per channel."""

    def normalise(images: Tensor) -> Tensor:
        means = torch.tensor(mean, device=images.device).view(-1, 1, 1)
        stds = torch.tensor(std, device=images.device).view(-1, 1, 1)
        return (images.float() / 255 - means) / stds

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
