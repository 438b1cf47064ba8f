"""What a model's own transforms are given, and the generators that they may draw from."""

import random
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import Dataset

from smoothout.noise.philox import fold


class Rows(Dataset[Any]):
    """Samples in memory one by one, as (inputs, class)."""

    def __init__(self, inputs: Tensor, targets: Tensor) -> None:
        self._inputs, self._targets = inputs, targets

    def __len__(self) -> int:
        return len(self._targets)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        return self._inputs[index], int(self._targets[index])


@dataclass(frozen=True)
class OnPicture:
    """A transform as a model carries it: from a picture to a float tensor.

    Attributes:
        transform: Takes a PIL image where the sample is one or its bytes (1 or 3, H, W), else the sample itself.
        name: Its key, for errors.
    """

    transform: Callable[[Any], Any]
    name: str

    def __call__(self, sample: Any) -> Tensor:
        """Transform one sample."""
        picture = _picture(sample)
        try:
            made = self.transform(picture)
        except Exception as error:  # whatever a user's transform raises
            raise ValueError(
                f"input_transform[{self.name!r}] failed on a {type(picture).__name__}: {type(error).__name__}: "
                f"{error}. Images come as PIL images; expected a transform that takes one and ends with ToTensor()."
            ) from error
        if not isinstance(made, Tensor) or not made.is_floating_point():
            got = f"a Tensor of {made.dtype}" if isinstance(made, Tensor) else f"a {type(made).__name__}"
            raise TypeError(
                f"input_transform[{self.name!r}] returned {got}; expected a Tensor of floats. End it with "
                f"torchvision.transforms.ToTensor(), and Normalize where the model wants it."
            )
        return made.float()


def checked(transforms: Mapping[str, Callable[[Any], Any]]) -> tuple[OnPicture, OnPicture]:
    """Those for training and for evaluation, once it is sure that they are there and can be called."""
    for name in ("train", "eval"):
        if not isinstance(transforms, Mapping) or not callable(transforms.get(name)):
            got = type(transforms).__name__
            if isinstance(transforms, Mapping):
                got = ", ".join(f"{key!r}: {type(value).__name__}" for key, value in transforms.items()) or "empty"
            raise TypeError(
                f"input_transform is {got}; expected a mapping with 'train' and 'eval', each a callable that takes "
                f"a PIL image. Give it a torchvision.transforms.Compose for {name!r}."
            )
    return OnPicture(transforms["train"], "train"), OnPicture(transforms["eval"], "eval")


def _picture(sample: Any) -> Any:
    if not isinstance(sample, Tensor) or sample.dtype != torch.uint8 or sample.dim() != 3:
        return sample
    if len(sample) == 1:
        return Image.fromarray(sample[0].numpy())
    return Image.fromarray(sample.permute(1, 2, 0).contiguous().numpy()) if len(sample) == 3 else sample


@contextmanager
def generators_kept() -> Iterator[None]:
    """Afterwards the CPU generators of torch, Python and NumPy are as they were."""
    states = torch.default_generator.get_state(), random.getstate(), np.random.get_state()
    try:
        yield
    finally:
        torch.default_generator.set_state(states[0])
        random.setstate(states[1])
        np.random.set_state(states[2])


def seed_generators(seed: int, index: int) -> None:
    """Seed the CPU generators of torch, Python and NumPy for one sample."""
    own = fold(seed, index) >> 1
    torch.default_generator.manual_seed(own)
    random.seed(own)
    np.random.seed(own % 2**32)
