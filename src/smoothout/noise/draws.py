"""Uniform and normal draws for a group of tensors, keyed so that each can be made again anywhere.

The reference in plain torch; any faster backend must return the same bits.

A draw depends on five keys and a counter:

- ``NoiseKey(seed, step, stream, draw)`` becomes the 64-bit key of a Philox generator, by Philox itself;
- the tensor's ordinal and the element's row-major index in the full logical tensor are its counter.

One counter gives 128 bits: eight uniform draws of 16 bits or four normal ones. Why 16 bits suffice:
docs/decisions/0003-counter-based-noise.md.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from smoothout.noise.elementary import exact_sqrt, log, sin_cos_turns
from smoothout.noise.philox import MASK32, fold, philox4x32

UNIFORM_PER_BLOCK = 8
NORMAL_PER_BLOCK = 4
#: A uniform draw is an odd integer k divided by this, |k| < 65536.
UNIFORM_DENOMINATOR = 65536
_UNIFORM, _NORMAL = 0, 1  # last counter word: the distributions never share bits


@dataclass(frozen=True)
class NoiseKey:
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
    words = _words(key, ordinals, sizes, UNIFORM_PER_BLOCK, first, _UNIFORM, device)
    # Four 32-bit words are eight signed 16-bit integers s, low half first; k = 2 s + 1.
    halves = torch.stack(words, dim=1).to(torch.int32).view(torch.int16)
    return _per_tensor(halves.flatten().to(torch.int32).mul_(2).add_(1), sizes, UNIFORM_PER_BLOCK)


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
    words = _words(key, ordinals, sizes, NORMAL_PER_BLOCK, first, _NORMAL, device)
    first_of_pair, second_of_pair = (torch.stack(pair, dim=1) for pair in (words[::2], words[1::2]))
    u = (first_of_pair.to(torch.float32) + 0.5) * 2**-32
    radius = exact_sqrt((-2 * log(u)).to(torch.float64)).to(torch.float32)  # so it is rounded correctly
    sine, cosine = sin_cos_turns(second_of_pair)
    z = torch.stack((radius * cosine, radius * sine), dim=2)
    return _per_tensor(z.flatten(), sizes, NORMAL_PER_BLOCK)


def _words(
    key: NoiseKey,
    ordinals: Sequence[int],
    sizes: Sequence[int],
    per_block: int,
    first: int,
    distribution: int,
    device: torch.device,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Philox of (block low, block high, ordinal, distribution) for all blocks of all tensors in one go."""
    if first % per_block:
        raise ValueError(f"first is {first}; expected a multiple of {per_block}, the draws of one block.")
    start = first // per_block
    counts = [-(-size // per_block) for size in sizes]
    block = torch.cat([torch.arange(start, start + count, device=device) for count in counts])
    ordinal = torch.cat(
        [torch.full((count,), number, device=device) for count, number in zip(counts, ordinals, strict=True)]
    )
    tag = block.new_full((1,), distribution)
    return philox4x32((block & MASK32, block >> 32, ordinal, tag), key.words())


def _per_tensor(flat: Tensor, sizes: Sequence[int], per_block: int) -> list[Tensor]:
    """Cut the draws of all blocks into tensors, dropping what a last block has too many."""
    padded = [-(-size // per_block) * per_block for size in sizes]
    return [piece[:size] for piece, size in zip(torch.split(flat, padded), sizes, strict=True)]
