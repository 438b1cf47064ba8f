"""Slow, obvious versions of everything fast: Python numbers, one element at a time."""

import contextlib
import math

import numpy as np
import torch

MASK = 0xFFFFFFFF


def philox(counter, key, rounds=7):
    """Philox4x32 as the paper's figure draws it."""
    r0, l0, r1, l1 = counter
    k0, k1 = key
    for _ in range(rounds):
        p0, p1 = r0 * 0xD2511F53, r1 * 0xCD9E8D57
        r0, l0, r1, l1 = (p1 >> 32) ^ l0 ^ k0, p1 & MASK, (p0 >> 32) ^ l1 ^ k1, p0 & MASK
        k0, k1 = (k0 + 0x9E3779B9) & MASK, (k1 + 0xBB67AE85) & MASK
    return r0, l0, r1, l1


def key_words(seed, step, stream, draw):
    low, high, _, _ = philox((step & MASK, step >> 32, stream, draw), (seed & MASK, seed >> 32))
    return low, high


def uniform_integer(seed, step, stream, draw, ordinal, index):
    """The odd integer k of one element; its noise is k / 65536."""
    block, lane = divmod(index, 8)
    words = philox((block & MASK, block >> 32, ordinal, 0), key_words(seed, step, stream, draw))
    half = (words[lane // 2] >> (16 * (lane % 2))) & 0xFFFF
    signed = half - 65536 if half >= 32768 else half
    return 2 * signed + 1


def normal(seed, step, stream, draw, ordinal, index):
    """The standard normal number of one element."""
    block, lane = divmod(index, 4)
    words = philox((block & MASK, block >> 32, ordinal, 1), key_words(seed, step, stream, draw))
    a, b = words[2 * (lane // 2) :][:2]
    radius = np.sqrt(np.float32(-2) * log((np.float32(a) + np.float32(0.5)) * np.float32(2**-32)))
    return float(radius * (cos_turns(b) if lane % 2 == 0 else sin_turns(b)))


def log(x):
    """The published order of operations in float32; close to math.log, whose bits differ between machines."""
    mantissa, exponent = np.frexp(x)
    if mantissa < np.float32(math.sqrt(0.5)):
        mantissa, exponent = np.float32(2) * mantissa, exponent - 1
    s = (mantissa - np.float32(1)) / (mantissa + np.float32(1))
    series = polynomial([1 / (2 * k + 1) for k in range(5)], s * s)
    return np.float32(exponent) * np.float32(math.log(2)) + np.float32(2) * s * series


def quarter_and_rest(word):
    """Of the angle v = (word + 1/2) / 2^32 of a turn: the nearest quarter, and what is left in radians."""
    quarter = (word + 2**29) // 2**30
    return quarter % 4, np.float32(2 * (word - quarter * 2**30) + 1) * np.float32(math.pi / 2**32)


def sin_turns(word):
    """sin(2 pi v): sine or cosine of what is left of v after whole quarters."""
    quarter, t = quarter_and_rest(word)
    return [sine(t), cosine(t), -sine(t), -cosine(t)][quarter]


def cos_turns(word):
    """cos(2 pi v) = sin(2 pi (v + 1/4)), without rounding the sum."""
    quarter, t = quarter_and_rest(word)
    return [cosine(t), -sine(t), -cosine(t), sine(t)][quarter]


def sine(t):
    return t * polynomial([(-1) ** k / math.factorial(2 * k + 1) for k in range(5)], t * t)


def cosine(t):
    return polynomial([(-1) ** k / math.factorial(2 * k) for k in range(6)], t * t)


def polynomial(coefficients, x):
    total = np.float32(coefficients[-1])
    for c in reversed(coefficients[:-1]):
        total = total * x + np.float32(c)
    return total


def rounded(value, dtype):
    return torch.tensor(value, dtype=torch.float64).to(dtype).item()


def lane_sum(values):
    """The published order of sums: 256 lanes, then halves."""
    lanes = [math.fsum(values[start : start + 1]) for start in range(min(256, len(values)))]
    for index in range(256, len(values)):
        lanes[index % 256] += values[index]
    while len(lanes) > 1:
        half = -(-len(lanes) // 2)
        lanes = [lanes[i] + lanes[i + half] if i + half < len(lanes) else lanes[i] for i in range(half)]
    return lanes[0]


def filters(parameter, transposed_groups=None):
    """Lists of the multi-indices that make up each filter."""
    everywhere = (
        list(torch.cartesian_prod(*(torch.arange(n) for n in parameter.shape)).reshape(-1, parameter.dim()).tolist())
        if parameter.dim()
        else [[]]
    )
    if parameter.dim() < 2:
        return [[index] for index in everywhere]
    if transposed_groups is None:
        return [[index for index in everywhere if index[0] == f] for f in range(parameter.shape[0])]
    inputs, outputs = parameter.shape[0] // transposed_groups, parameter.shape[1]
    return [
        [index for index in everywhere if index[0] // inputs == group and index[1] == out]
        for group in range(transposed_groups)
        for out in range(outputs)
    ]


def offset(parameter, ordinal, amplitude, scale, distribution, key, transposed_groups=None):
    """theta of one parameter, element by element; key = (seed, step, stream, draw)."""
    dtype = torch.float64 if parameter.dtype == torch.float64 else torch.float32
    w, n = parameter.detach(), parameter.numel()
    if distribution == "uniform":
        raw = [uniform_integer(*key, ordinal, index) / 65536 for index in range(n)]
    else:
        raw = [normal(*key, ordinal, index) for index in range(n)]
    z = torch.tensor(raw, dtype=torch.float64).view(w.shape)
    factor = torch.zeros(w.shape, dtype=torch.float64)
    if scale == "none":
        factor.fill_(rounded(amplitude, dtype))
    elif scale == "weight":
        factor = (w.abs().to(dtype) * torch.tensor(amplitude, dtype=dtype)).double()
    else:
        for indices in filters(w, transposed_groups):
            places = [tuple(index) for index in indices]
            norms = []
            for values in (w.double(), z):
                norm = math.sqrt(lane_sum([float(values[place]) * float(values[place]) for place in places]))
                norms.append(abs(float(values[places[0]])) if len(places) == 1 else norm)
            for place in places:
                factor[place] = rounded(amplitude * norms[0] / (norms[1] + 1e-6), dtype)
    return (z * factor).to(dtype)  # a product of two float32 is exact in float64, so this rounds once


def perturbed(parameter, *arguments, **options):
    """fl(w + theta) in the parameter's type."""
    theta = offset(parameter, *arguments, **options)
    return (parameter.detach().to(theta.dtype) + theta).to(parameter.dtype)


@contextlib.contextmanager
def by_hand(model, amplitude, key, *, scale="none", distribution="uniform", left_out=()):
    """What ``smoother.perturbed()`` does, by hand: copy, add, and put the copies back."""
    parameters = list(model.named_parameters())
    copies = [parameter.detach().clone() for _, parameter in parameters]
    with torch.no_grad():
        for ordinal, (name, parameter) in enumerate(parameters):
            if name not in left_out:
                parameter.copy_(perturbed(parameter, ordinal, amplitude, scale, distribution, key))
    torch.clear_autocast_cache()
    yield
    with torch.no_grad():
        for (_, parameter), copy in zip(parameters, copies, strict=True):
            parameter.copy_(copy)
    torch.clear_autocast_cache()
