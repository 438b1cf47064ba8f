"""Philox4x32: the counter-based random function under every draw.

Source: Salmon, Moraes, Dror, Shaw, "Parallel random numbers: as easy as 1, 2, 3", SC 2011. Seven rounds
are the fewest for which the authors report that every test of BigCrush passes (their table 2).
"""

from typing import TypeVar

from torch import Tensor

Word = TypeVar("Word", int, Tensor)

ROUNDS = 7
MASK32 = 0xFFFFFFFF
MULTIPLIERS = (0xD2511F53, 0xCD9E8D57)
WEYL = (0x9E3779B9, 0xBB67AE85)  # golden ratio and sqrt(3) - 1, added to the key in each round


def philox4x32(
    counter: tuple[Word, Word, Word, Word], key: tuple[int, int], rounds: int = ROUNDS
) -> tuple[Word, Word, Word, Word]:
    """Turn a 128-bit counter into 128 random bits, four words of 32.

    For every key it is a bijection of the counters. The words are Python ints, or int64 tensors holding
    values in [0, 2^32): products wrap at 2^64, which leaves the bits that are used unharmed.

    Args:
        counter: Four words; tensors broadcast against each other.
        key: Two words.
        rounds: 7 for all noise here; 10 is the number other libraries use.

    Example:
        >>> [f"{word:08x}" for word in philox4x32((0, 0, 0, 0), (0, 0), rounds=10)]
        ['6627e8d5', 'e169c58d', 'bc57ac4c', '9b00dbd8']
    """
    c0, c1, c2, c3 = counter
    k0, k1 = key
    for _ in range(rounds):
        # Only the factors must be clean 32-bit values; what xor carries above bit 31 is masked off here.
        product0 = (c0 & MASK32) * MULTIPLIERS[0]
        product1 = (c2 & MASK32) * MULTIPLIERS[1]
        c0, c2 = product1 >> 32, product0 >> 32
        c0 ^= c1
        c0 ^= k0
        c2 ^= c3
        c2 ^= k1
        c1, c3 = product1, product0
        k0, k1 = (k0 + WEYL[0]) & MASK32, (k1 + WEYL[1]) & MASK32
    return c0 & MASK32, c1 & MASK32, c2 & MASK32, c3 & MASK32


def fold(seed: int, *parts: int) -> int:
    """Derive a 64-bit number from a seed and up to four whole numbers below 2^32; the same on every machine.

    Example:
        >>> fold(0, 1) != fold(0, 2) != fold(1, 1)
        True
    """
    if len(parts) > 4:
        raise ValueError(f"there are {len(parts)} parts to fold; expected at most 4.")
    c0, c1, c2, c3 = (*parts, 0, 0, 0, 0)[:4]
    low, high, _, _ = philox4x32((c0, c1, c2, c3), (seed & MASK32, (seed >> 32) & MASK32))
    return (high << 32) | low
