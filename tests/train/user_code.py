"""Small data and models for the tests, named as FILE.py:function."""

import torch
from torch import nn


def blobs():
    """Four classes around four corners of a 6-dimensional cube, noisy enough to be missed now and then."""
    generator = torch.Generator().manual_seed(0)
    centres = torch.randn(4, 6, generator=generator)

    def split(count):
        targets = torch.randint(0, 4, (count,), generator=generator)
        return centres[targets] + torch.randn(count, 6, generator=generator), targets

    return {"train": split(203), "holdout": split(60), "test": split(60)}


def other_blobs():
    """The same with the splits' targets shifted by one class."""
    return {name: (inputs, (targets + 1) % 4) for name, (inputs, targets) in blobs().items()}


def pictures():
    """Bytes, 120 training images of 9x9 in four classes."""
    generator = torch.Generator().manual_seed(0)

    def split(count):
        images = torch.randint(0, 256, (count, 1, 9, 9), dtype=torch.uint8, generator=generator)
        return images, torch.arange(count) % 4

    return {"train": split(120), "test": split(20)}


def net(num_classes, input_shape, width=16):
    """With BatchNorm and dropout."""
    return nn.Sequential(
        nn.Linear(*input_shape, width),
        nn.BatchNorm1d(width),
        nn.ReLU(),
        nn.Dropout(0.2),
        nn.Linear(width, num_classes),
    )


def diverging(input_shape):
    """Gives no finite logits."""

    class Net(nn.Linear):
        def forward(self, inputs):
            return super().forward(inputs) * float("inf")

    return Net(*input_shape, 4)
