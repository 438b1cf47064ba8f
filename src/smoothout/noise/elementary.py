"""Square root, logarithm, sine and cosine that are the same to the bit on every device.

Functions of libraries differ in the last bit between devices and processors. Here every step is an addition, a
multiplication, a division or a square root, rounded once as IEEE 754 has it, in an order that is part of the
definition: compiled kernels follow it, and must not fuse a product with a sum. All but :func:`exact_sqrt` are in
float32, where a vector holds twice as many numbers as in float64; each is within some 1e-7 of the exact value.
"""

import ctypes
import math

import torch
from torch import Tensor


def _float32(value: float) -> float:
    return ctypes.c_float(value).value


#: Of ln((1 + s) / (1 - s)) = 2 s sum_k s^(2k) / (2k + 1); with |s| <= 0.172 what is left out is below 3e-9 of the sum.
LOG = tuple(_float32(1 / (2 * k + 1)) for k in range(5))
#: Of sin(t) = t sum_k (-1)^k t^(2k) / (2k + 1)! and cos(t) = sum_k (-1)^k t^(2k) / (2k)!, |t| <= pi / 4: below 3e-9.
SIN = tuple(_float32((-1) ** k / math.factorial(2 * k + 1)) for k in range(5))
COS = tuple(_float32((-1) ** k / math.factorial(2 * k)) for k in range(6))
LN2 = _float32(math.log(2))
SQRT_HALF = _float32(math.sqrt(0.5))
#: Half a step of an angle of 32 bits, in radians.
HALF_STEP = _float32(math.pi / 2**32)
QUARTER = 30  # bits of a quarter of a turn


def exact_sqrt(values: Tensor) -> Tensor:
    """The square root of float64 values, rounded correctly.

    IEEE 754 asks that of every square root, and CUDA does it. PyTorch's on a CPU, which calls a vector library, is off
    by an ulp for one value in seventy. One step of Newton's iteration mends that, from the exact rest x - s^2, whose
    terms come from the halves of s (Dekker 1971).
    """
    root = values.sqrt()
    high = root * float(2**27 + 1)
    high = high - (high - root)
    low = root - high
    rest = ((values - high * high) - 2 * high * low) - low * low
    step = rest / (2 * root)
    return torch.where(step.isfinite(), root + step, root)  # 0, infinities and nan stay


def log(values: Tensor) -> Tensor:
    """ln of positive normal float32 values.

    With x = m 2^e, sqrt(1/2) <= m < sqrt(2), and s = (m - 1) / (m + 1): ln x = e ln 2 + 2 s sum_k s^(2k) / (2k + 1).
    """
    mantissa, exponent = torch.frexp(values)  # in [1/2, 1)
    low = mantissa < SQRT_HALF
    mantissa = torch.where(low, 2 * mantissa, mantissa)
    exponent = (exponent - low.to(exponent.dtype)).to(torch.float32)
    s = (mantissa - 1) / (mantissa + 1)
    return exponent * LN2 + 2 * s * horner(LOG, s * s)


def sin_cos_turns(words: Tensor) -> tuple[Tensor, Tensor]:
    """sin(2 pi v) and cos(2 pi v), float32, of v = (w + 1/2) / 2^32 for int64 words w in [0, 2^32).

    In units of half a step the angle, less the nearest quarter of a turn, is an odd integer of at most 30 bits.
    """
    quarter = (words + (1 << (QUARTER - 1))) >> QUARTER
    t = (2 * (words - (quarter << QUARTER)) + 1).to(torch.float32) * HALF_STEP
    square = t * t
    sine, cosine = t * horner(SIN, square), horner(COS, square)
    odd = (quarter & 1) == 1
    sine, cosine = torch.where(odd, cosine, sine), torch.where(odd, sine, cosine)
    return torch.where((quarter & 2) != 0, -sine, sine), torch.where(((quarter + 1) & 2) != 0, -cosine, cosine)


def horner(coefficients: tuple[float, ...], x: Tensor) -> Tensor:
    """sum_k c_k x^k, from the last coefficient on."""
    total = torch.full_like(x, coefficients[-1])
    for c in reversed(coefficients[:-1]):
        total = total * x + c
    return total
