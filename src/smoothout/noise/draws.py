"""Uniform and normal draws for a group of tensors, keyed so that each can be made again anywhere.

The reference in plain torch; any faster backend must return the same bits.

A draw depends on five keys and a counter:

- ``NoiseKey(seed, step, stream, draw)`` becomes the 64-bit key of a Philox generator, by Philox itself;
- the tensor's ordinal and the element's row-major index in the full logical tensor are its counter.

One counter gives 128 bits: eight uniform draws of 16 bits or four normal ones. Why 16 bits suffice:
docs/decisions/0003-counter-based-noise.md.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from smoothout._types import Distribution
from smoothout.noise.elementary import exact_sqrt, log, sin_cos_turns
from smoothout.noise.philox import MASK32, fold, philox4x32

UNIFORM_PER_BLOCK = 8
NORMAL_PER_BLOCK = 4
#: Draws that one counter gives.
PER_BLOCK: dict[Distribution, int] = {"uniform": UNIFORM_PER_BLOCK, "normal": NORMAL_PER_BLOCK}
#: A uniform draw is an odd integer k divided by this, |k| < 65536.
UNIFORM_DENOMINATOR = 65536
_UNIFORM, _NORMAL = 0, 1  # last counter word: the distributions never share bits


class NoiseKey(NamedTuple):
    """What names one noise: seed (64 bit), optimizer step, ghost batch, and copy of that ghost batch."""

    seed: int
    step: int
    stream: int = 0
    draw: int = 0

    def words(self) -> tuple[int, int]:
        """The Philox key, two 32-bit words."""
        key = fold(self.seed, self.step & MASK32, self.step >> 32, self.stream, self.draw)
        return key & MASK32, key >> 32


def uniform_integers(
    key: NoiseKey, ordinals: Sequence[int], sizes: Sequence[int], device: torch.device, *, first: int = 0
) -> list[Tensor]:
    """Draw odd integers k, uniform on {-65535, -65533, ..., 65535}; z = k / 65536 is the uniform noise.

    z is symmetric in (-1, 1), never 0 and never an end, with variance (1 - 2^-32) / 3.

    Args:
        key: Names the noise.
        ordinals: Ordinal of each tensor.
        sizes: Elements of each tensor.
        device: Where to draw.
        first: Index of the first element to draw, a multiple of 8 (a shard, or a test of the far end).

    Returns:
        One int32 tensor of shape (size,) per tensor, by row-major element index.
    """
    blocks = _blocks(sizes, UNIFORM_PER_BLOCK, first, device)
    return _cut(uniform_integers_of(key, ordinals, blocks), sizes)


def normal(
    key: NoiseKey, ordinals: Sequence[int], sizes: Sequence[int], device: torch.device, *, first: int = 0
) -> list[Tensor]:
    """Draw standard normal numbers by Box and Muller (1958), |z| <= 6.77.

    z = sqrt(-2 ln u) cos(2 pi v) and sqrt(-2 ln u) sin(2 pi v), with u and v of 32 bits, in float32 by
    :mod:`smoothout.noise.elementary`, whose bits are the same everywhere.

    Args:
        key, ordinals, sizes, device: As for :func:`uniform_integers`.
        first: A multiple of 4.

    Returns:
        One float32 tensor of shape (size,) per tensor.
    """
    return _cut(normal_of(key, ordinals, _blocks(sizes, NORMAL_PER_BLOCK, first, device)), sizes)


def uniform_integers_of(key: NoiseKey, ordinals: Sequence[int], blocks: Sequence[Tensor]) -> list[Tensor]:
    """:func:`uniform_integers` of some blocks alone, in any order; block b holds the elements 8 b to 8 b + 7.

    Args:
        key, ordinals: As for :func:`uniform_integers`.
        blocks: Numbers of each tensor's blocks, int64.

    Returns:
        One int32 tensor of shape (8 B,) per tensor.
    """
    words = _words(key, ordinals, blocks, _UNIFORM)
    # Four 32-bit words are eight signed 16-bit integers s, low half first; k = 2 s + 1.
    halves = torch.stack(words, dim=1).to(torch.int32).view(torch.int16)
    drawn = halves.flatten().to(torch.int32).mul_(2).add_(1)
    return list(torch.split(drawn, [UNIFORM_PER_BLOCK * len(each) for each in blocks]))


def normal_of(key: NoiseKey, ordinals: Sequence[int], blocks: Sequence[Tensor]) -> list[Tensor]:
    """:func:`normal` of some blocks alone; block b holds the elements 4 b to 4 b + 3."""
    words = _words(key, ordinals, blocks, _NORMAL)
    first_of_pair, second_of_pair = (torch.stack(pair, dim=1) for pair in (words[::2], words[1::2]))
    u = (first_of_pair.to(torch.float32) + 0.5) * 2**-32
    radius = exact_sqrt((-2 * log(u)).to(torch.float64)).to(torch.float32)  # so it is rounded correctly
    sine, cosine = sin_cos_turns(second_of_pair)
    z = torch.stack((radius * cosine, radius * sine), dim=2).flatten()
    return list(torch.split(z, [NORMAL_PER_BLOCK * len(each) for each in blocks]))


def _blocks(sizes: Sequence[int], per_block: int, first: int, device: torch.device) -> list[Tensor]:
    """Numbers of the blocks that hold so many elements, from the first one."""
    if first % per_block:
        raise ValueError(f"first is {first}; expected a multiple of {per_block}, the draws of one block.")
    start = first // per_block
    return [torch.arange(start, start - (-size // per_block), device=device) for size in sizes]


def _words(
    key: NoiseKey, ordinals: Sequence[int], blocks: Sequence[Tensor], distribution: int
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Philox of (block low, block high, ordinal, distribution) for all blocks of all tensors in one go."""
    block = torch.cat(list(blocks))
    ordinal = torch.cat([each.new_full((len(each),), number) for each, number in zip(blocks, ordinals, strict=True)])
    tag = block.new_full((1,), distribution)
    return philox4x32((block & MASK32, block >> 32, ordinal, tag), key.words())


def _cut(drawn: Sequence[Tensor], sizes: Sequence[int]) -> list[Tensor]:
    """Drop what a last block has too many."""
    return [each[:size] for each, size in zip(drawn, sizes, strict=True)]
