"""Small data and networks of these tests, named as FILE.py:function."""

import os
import signal
import time
from pathlib import Path

import torch
from torch import nn


def images():
    """130 training images of 9x9 in four classes."""
    generator = torch.Generator().manual_seed(0)
    shapes = torch.randn(4, 1, 9, 9, generator=generator)

    def split(count):
        targets = torch.randint(0, 4, (count,), generator=generator)
        return shapes[targets] + torch.randn(count, 1, 9, 9, generator=generator), targets

    return {"train": split(130), "holdout": split(30), "test": split(30)}


def even_images():
    """The first 128 of the training images."""
    made = images()
    return made | {"train": tuple(values[:128] for values in made["train"])}


class Read(torch.utils.data.Dataset):
    """Images one by one."""

    def __init__(self, inputs, targets):
        self.inputs, self.targets = inputs, targets

    def __len__(self):
        return len(self.targets)

    def __getitem__(self, index):
        return self.inputs[index], self.targets[index]


def read_images():
    return {name: Read(*values) for name, values in images().items()} | {"classes": 4}


def conv(num_classes):
    """A convolution, BatchNorm and dropout."""
    return nn.Sequential(
        nn.Conv2d(1, 6, 3, stride=2),
        nn.BatchNorm2d(6),
        nn.ReLU(),
        nn.Dropout(0.2),
        nn.Flatten(),
        nn.Linear(96, 8),
        nn.BatchNorm1d(8, momentum=None),
        nn.ReLU(),
        nn.Linear(8, num_classes),
    )


def shared_norm(num_classes):
    """A BatchNorm that is called twice in a pass."""

    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.flat, self.first, self.norm = nn.Flatten(), nn.Linear(81, 6), nn.BatchNorm1d(6)
            self.last = nn.Linear(6, num_classes)

        def forward(self, inputs):
            return self.last(self.norm(self.norm(self.first(self.flat(inputs)))))

    return Net()


def unused(num_classes):
    class Net(nn.Sequential):
        def forward(self, inputs):
            return self[0](inputs)

    return Net(nn.Sequential(nn.Flatten(), nn.Linear(81, num_classes)), nn.Linear(3, 3))


def counting(num_classes):
    """Keeps a buffer of its own that each process changes by what it sees."""

    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.flat, self.last = nn.Flatten(), nn.Linear(81, num_classes)
            self.register_buffer("largest", torch.zeros(()))

        def forward(self, inputs):
            if self.training:
                self.largest.copy_(torch.maximum(self.largest, inputs.max()))
            return self.last(self.flat(inputs))

    return Net()


class Troubled(nn.Module):
    """The network above; in process 1 something happens, once, in the training pass that TROUBLE_AT says."""

    def __init__(self, num_classes, trouble):
        super().__init__()
        self.net, self.trouble, self.passes = conv(num_classes), trouble, 0

    def forward(self, inputs):
        self.passes += self.training
        happened = Path(os.environ["TROUBLE"])
        due = self.passes == int(os.environ["TROUBLE_AT"]) and os.environ.get("RANK") == "1"
        if due and not happened.exists():
            happened.write_text(str(time.time()))
            self.trouble()
        return self.net(inputs)


def killed(num_classes):
    return Troubled(num_classes, lambda: os.kill(os.getpid(), signal.SIGKILL))


def raising(num_classes):
    def trouble():
        raise ValueError("a mistake in the network")

    return Troubled(num_classes, trouble)
