"""Square root, logarithm, sine and cosine in float64 that are the same to the bit on every device.

Functions of libraries differ in the last bit between devices and processors. Here every step is an addition, a
multiplication or a division, rounded once as IEEE 754 has it, in an order that is part of the definition: compiled
kernels follow it, and must not fuse a product with a sum. Series end where what is left out is a thousandth of an ulp
of a float32.
"""

import math

import torch
from torch import Tensor

#: Of ln((1 + s) / (1 - s)) = 2 s sum_k s^(2k) / (2k + 1); with |s| <= 0.172 what is left out is below 2e-12 of the sum.
LOG = tuple(1 / (2 * k + 1) for k in range(7))
#: Of sin(t) = t sum_k (-1)^k t^(2k) / (2k + 1)! and cos(t) = sum_k (-1)^k t^(2k) / (2k)!, |t| <= pi / 4: below 1e-11.
SIN = tuple((-1) ** k / math.factorial(2 * k + 1) for k in range(6))
COS = tuple((-1) ** k / math.factorial(2 * k) for k in range(7))
LN2 = math.log(2)
TWO_PI = 2 * math.pi
SQRT2 = math.sqrt(2)


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
    """ln of positive normal float64 values.

    With x = m 2^e, sqrt(1/2) <= m < sqrt(2), and s = (m - 1) / (m + 1): ln x = e ln 2 + 2 s sum_k s^(2k) / (2k + 1).
    """
    mantissa, exponent = torch.frexp(values)  # in [1/2, 1)
    low = mantissa < SQRT2 / 2
    mantissa = torch.where(low, 2 * mantissa, mantissa)
    exponent = (exponent - low.to(exponent.dtype)).to(torch.float64)
    s = (mantissa - 1) / (mantissa + 1)
    return exponent * LN2 + 2 * s * horner(LOG, s * s)


def sin_cos_turns(turns: Tensor) -> tuple[Tensor, Tensor]:
    """sin(2 pi v) and cos(2 pi v) for v in [0, 1], of 32 bits after the point: then v minus quarters is exact."""
    quarter = (4 * turns + 0.5).floor()
    t = TWO_PI * (turns - 0.25 * quarter)
    square = t * t
    sine, cosine = t * horner(SIN, square), horner(COS, square)
    odd = quarter.remainder(2) == 1
    sine, cosine = torch.where(odd, cosine, sine), torch.where(odd, sine, cosine)
    turned = quarter.remainder(4)
    return torch.where(turned >= 2, -sine, sine), torch.where((turned == 1) | (turned == 2), -cosine, cosine)


def horner(coefficients: tuple[float, ...], x: Tensor) -> Tensor:
    """sum_k c_k x^k, from the last coefficient on."""
    total = torch.full_like(x, coefficients[-1])
    for c in reversed(coefficients[:-1]):
        total = total * x + c
    return total
