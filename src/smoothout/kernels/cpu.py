"""Noise on float32 weights on a CPU: draw, scale, copy and add in one pass, compiled by numba.

The weights are cut into units of work, which torch's own OpenMP threads take one after another; a unit makes its draws
in a buffer that stays in the cache. Each step rounds as the reference does (:mod:`smoothout.scaling`), so that the bits
are the same: products and sums are rounded one by one, squares of uniform draws are summed as integers, other squares
in the published lanes. So nothing here may be compiled with fastmath.
"""

import math
import zlib
from typing import Any

import numpy as np
from llvmlite import ir
from numba import carray, cfunc, njit, types
from numba.core import cgutils
from numba.extending import intrinsic, overload

from smoothout.noise.draws import NORMAL_PER_BLOCK, UNIFORM_DENOMINATOR, UNIFORM_PER_BLOCK
from smoothout.noise.elementary import COS, LN2, LOG, SIN, SQRT2, TWO_PI
from smoothout.noise.philox import MULTIPLIERS, ROUNDS, WEYL
from smoothout.scaling import LANES, NORM_FLOOR

#: What a worker is given: the address of these int64 numbers. Of the first three workers take in turns.
FIELDS = (
    "next_unit",
    "finished",
    "next_worker",
    "units",  # how many
    "table",  # address of (U, 4) int64: tensor, first element, end, elements of a filter
    "weights",  # address of (T,) int64, the addresses of float32 arrays
    "copies",  # the same
    "ordinals",  # address of (T,) int64
    "key0",
    "key1",
    "amplitude",  # address of a float64
    "mode",
    "normal",  # 1 for normal draws, 0 for uniform ones
    "scratch",  # address
    "scratch_bytes",  # of a worker
    "taken",  # address of a byte, set when the last unit is done
)
#: What a worker does; the first three also copy the weights, the last one copies them back.
MODES = ("none", "weight", "filter", "restore")
_NONE, _WEIGHT, _FILTER, _RESTORE = range(4)
(
    _NEXT_UNIT, _FINISHED, _NEXT_WORKER, _UNITS, _TABLE, _WEIGHTS, _COPIES, _ORDINALS, _KEY0, _KEY1, _AMPLITUDE, _MODE,
    _NORMAL, _SCRATCH, _SCRATCH_BYTES, _TAKEN,
) = range(len(FIELDS))  # fmt: skip

_M0, _M1 = map(np.uint64, MULTIPLIERS)
_W0, _W1 = map(np.uint32, WEYL)
_LOW, _SHIFT = np.uint64(0xFFFFFFFF), np.uint64(32)
_STEP = np.float32(1 / UNIFORM_DENOMINATOR)
_WORDS, _WORD = 4, 8  # 32-bit words of a block of draws, bytes of a field
_SQRT_HALF = SQRT2 / 2
_TO_TURNS = 2.0**-32
_MANTISSA, _EXPONENT, _BIAS = (1 << 52) - 1, 52, 1023  # of a float64
_INT64 = ir.IntType(64)


def scratch_bytes(longest: int, normal: bool) -> int:
    """Of a worker whose longest unit has so many elements: the lanes of a sum, words of whole blocks, normal draws."""
    per_block = NORMAL_PER_BLOCK if normal else UNIFORM_PER_BLOCK
    return 8 * LANES + (8 if normal else 4) * _WORDS * (-(-longest // per_block) + 1)


@intrinsic
def _pointer(_context: Any, _address: Any) -> Any:
    """An address as a pointer, of which carray makes an array."""

    def generate(_target: Any, builder: Any, _signature: Any, arguments: Any) -> Any:
        return builder.inttoptr(arguments[0], cgutils.voidptr_t)

    return types.voidptr(types.int64), generate


@intrinsic
def _take(_context: Any, _address: Any) -> Any:
    """The number at an address, which is raised by one for the next who asks."""

    def generate(_target: Any, builder: Any, _signature: Any, arguments: Any) -> Any:
        place = builder.inttoptr(arguments[0], _INT64.as_pointer())
        return builder.atomic_rmw("add", place, ir.Constant(_INT64, 1), "acq_rel")

    return types.int64(types.int64), generate


@intrinsic
def _bits(_context: Any, _value: Any) -> Any:
    """A float64's bits as an integer."""

    def generate(_target: Any, builder: Any, _signature: Any, arguments: Any) -> Any:
        return builder.bitcast(arguments[0], _INT64)

    return types.int64(types.float64), generate


@intrinsic
def _of_bits(_context: Any, _value: Any) -> Any:
    """The float64 of some bits."""

    def generate(_target: Any, builder: Any, _signature: Any, arguments: Any) -> Any:
        return builder.bitcast(arguments[0], ir.DoubleType())

    return types.float64(types.int64), generate


@njit
def _draw(words: Any, first: Any, ordinal: Any, distribution: Any, k0: Any, k1: Any) -> None:
    """Philox of consecutive blocks; see :func:`smoothout.noise.philox.philox4x32`."""
    for block in range(len(words) // _WORDS):
        index = np.uint64(first + block)
        c0, c1 = np.uint32(index & _LOW), np.uint32(index >> _SHIFT)
        c2, c3 = np.uint32(ordinal), np.uint32(distribution)
        a0, a1 = k0, k1
        for _ in range(ROUNDS):
            product0, product1 = np.uint64(c0) * _M0, np.uint64(c2) * _M1
            c0 = np.uint32(product1 >> _SHIFT) ^ c1 ^ a0
            c2 = np.uint32(product0 >> _SHIFT) ^ c3 ^ a1
            c1, c3 = np.uint32(product1), np.uint32(product0)
            a0, a1 = np.uint32(a0 + _W0), np.uint32(a1 + _W1)
        at = _WORDS * block
        words[at], words[at + 1], words[at + 2], words[at + 3] = c0, c1, c2, c3


# Horner's rule is written out: over a loop the compiler makes no vectors.
@njit
def _log_series(x: Any) -> Any:
    c = LOG
    return (((((c[6] * x + c[5]) * x + c[4]) * x + c[3]) * x + c[2]) * x + c[1]) * x + c[0]


@njit
def _sine_series(x: Any) -> Any:
    c = SIN
    return ((((c[5] * x + c[4]) * x + c[3]) * x + c[2]) * x + c[1]) * x + c[0]


@njit
def _cosine_series(x: Any) -> Any:
    c = COS
    return (((((c[6] * x + c[5]) * x + c[4]) * x + c[3]) * x + c[2]) * x + c[1]) * x + c[0]


@njit(error_model="numpy")
def _log(x: Any) -> Any:
    """:func:`smoothout.noise.elementary.log`; the exponent is read from the number's bits."""
    bits = _bits(x)
    mantissa = _of_bits((bits & _MANTISSA) | ((_BIAS - 1) << _EXPONENT))
    exponent = np.float64((bits >> _EXPONENT) - (_BIAS - 1))
    low = mantissa < _SQRT_HALF
    mantissa = 2 * mantissa if low else mantissa
    exponent = exponent - 1 if low else exponent
    s = (mantissa - 1) / (mantissa + 1)
    return exponent * LN2 + 2 * s * _log_series(s * s)


@njit(error_model="numpy")
def _box_muller(words: Any, z: Any) -> None:
    """Normal draws of pairs of words; see :func:`smoothout.noise.draws.normal`."""
    for pair in range(len(words) // 2):
        u = (np.float64(words[2 * pair]) + 0.5) * _TO_TURNS
        v = (np.float64(words[2 * pair + 1]) + 0.5) * _TO_TURNS
        radius = math.sqrt(-2 * _log(u))
        quarter = math.floor(4 * v + 0.5)
        t = TWO_PI * (v - 0.25 * np.float64(quarter))
        square = t * t
        sine, cosine = t * _sine_series(square), _cosine_series(square)
        turned = np.int64(quarter)
        odd = (turned & 1) != 0
        one, other = (cosine, sine) if odd else (sine, cosine)
        one = -one if (turned & 3) >= 2 else one
        other = -other if ((turned + 1) & 2) != 0 else other
        z[2 * pair] = np.float32(radius * other)
        z[2 * pair + 1] = np.float32(radius * one)


def _number(drawn: Any) -> Any:
    """A draw as the float32 z: kept as an integer of 16 bits if uniform, as it is if normal."""
    raise NotImplementedError(drawn)  # numba takes the overload


@overload(_number, strict=False)  # or the annotations count as a difference
def _overload_number(drawn: Any) -> Any:
    if drawn == types.int16:
        return lambda drawn: np.float32(2 * np.int32(drawn) + 1) * _STEP
    return lambda drawn: drawn


def _norm_of_draws(drawn: Any, lanes: Any) -> Any:
    """||z||, of uniform draws by an exact sum of integers, whose squares are below 2^32."""
    raise NotImplementedError(drawn, lanes)


@overload(_norm_of_draws, strict=False)
def _overload_norm_of_draws(drawn: Any, lanes: Any) -> Any:  # noqa: ARG001
    if drawn.dtype == types.int16:
        return lambda drawn, lanes: np.sqrt(np.float64(_squares_of_integers(drawn))) / UNIFORM_DENOMINATOR  # noqa: ARG005
    return lambda drawn, lanes: np.sqrt(_squares(drawn, lanes))


@njit
def _add(w: Any, copy: Any, drawn: Any, factor: Any) -> None:
    """Copy the weights and add the draws times a factor."""
    for i in range(len(w)):
        value = w[i]
        copy[i] = value
        w[i] = value + _number(drawn[i]) * factor


@njit
def _add_by_weight(w: Any, copy: Any, drawn: Any, amplitude: Any) -> None:
    """The same, with a factor in proportion to each weight."""
    for i in range(len(w)):
        value = w[i]
        copy[i] = value
        w[i] = value + _number(drawn[i]) * (np.abs(value) * amplitude)


@njit(error_model="numpy")
def _add_by_element(w: Any, copy: Any, drawn: Any, amplitude: Any) -> None:
    """The same, for filters of one element."""
    for i in range(len(w)):
        z = _number(drawn[i])
        value = w[i]
        factor = np.float32(amplitude * np.float64(np.abs(value)) / (np.float64(np.abs(z)) + NORM_FLOOR))
        copy[i] = value
        w[i] = value + z * factor


@njit
def _squares_of_integers(halves: Any) -> Any:
    total = np.uint64(0)
    for i in range(len(halves)):
        k = np.uint32(np.abs(2 * np.int32(halves[i]) + 1))
        total += np.uint64(k) * np.uint64(k)
    return total


@njit
def _squares(w: Any, lanes: Any) -> Any:
    """Summed in the order of :func:`smoothout.scaling.blocked_sum`."""
    d = len(w)
    left = min(LANES, d)
    for lane in range(left):
        lanes[lane] = np.float64(w[lane]) * np.float64(w[lane])
    for start in range(LANES, d - LANES + 1, LANES):
        for lane in range(LANES):
            lanes[lane] += np.float64(w[start + lane]) * np.float64(w[start + lane])
    rest = max(d // LANES * LANES, LANES)
    for lane in range(d - rest):
        lanes[lane] += np.float64(w[rest + lane]) * np.float64(w[rest + lane])
    while left > 1:
        half = (left + 1) // 2
        for lane in range(left - half):
            lanes[lane] += lanes[half + lane]
        left = half
    return lanes[0]


@njit(error_model="numpy")
def _add_by_filter(w: Any, copy: Any, drawn: Any, amplitude: Any, d: Any, lanes: Any) -> None:
    """The same as :func:`_add`, for filters of d elements."""
    for start in range(0, len(w), d):
        end = start + d
        z_norm = _norm_of_draws(drawn[start:end], lanes)
        w_norm = np.sqrt(_squares(w[start:end], lanes))
        factor = np.float32(amplitude * w_norm / (z_norm + NORM_FLOOR))
        _add(w[start:end], copy[start:end], drawn[start:end], factor)


@njit
def _numbers(address: Any, count: Any) -> Any:
    return carray(_pointer(address), (count,), np.int64)


@njit
def _floats(address: Any, first: Any, end: Any) -> Any:
    return carray(_pointer(address + 4 * first), (end - first,), np.float32)


@njit(error_model="numpy")
def _perturb(w: Any, copy: Any, drawn: Any, mode: Any, amplitude: Any, d: Any, lanes: Any) -> None:
    """One unit, whose draws are made."""
    if mode == _NONE:
        _add(w, copy, drawn, np.float32(amplitude))
    elif mode == _WEIGHT:
        _add_by_weight(w, copy, drawn, np.float32(amplitude))
    elif d == 1:
        _add_by_element(w, copy, drawn, amplitude)
    else:
        _add_by_filter(w, copy, drawn, amplitude, d, lanes)


def _work(address: int) -> None:
    """Take units and do them, until none is left; any number of threads may be at it."""
    job = _numbers(address, len(FIELDS))
    weights, copies, ordinals = job[_WEIGHTS], job[_COPIES], job[_ORDINALS]
    k0, k1 = np.uint32(job[_KEY0]), np.uint32(job[_KEY1])
    amplitude = carray(_pointer(job[_AMPLITUDE]), (1,), np.float64)[0]
    scratch = job[_SCRATCH] + _take(address + _WORD * _NEXT_WORKER) * job[_SCRATCH_BYTES]
    lanes = carray(_pointer(scratch), (LANES,), np.float64)
    while True:
        u = _take(address + _WORD * _NEXT_UNIT)
        if u >= job[_UNITS]:
            return
        unit = _numbers(job[_TABLE] + 4 * _WORD * u, 4)
        tensor, first, end, d = unit[0], unit[1], unit[2], unit[3]
        w = _floats(_numbers(weights + _WORD * tensor, 1)[0], first, end)
        copy = _floats(_numbers(copies + _WORD * tensor, 1)[0], first, end)
        if job[_MODE] == _RESTORE:
            for i in range(len(w)):
                w[i] = copy[i]
        else:
            normal = job[_NORMAL]
            per_block = NORMAL_PER_BLOCK if normal else UNIFORM_PER_BLOCK
            block = first // per_block
            count = _WORDS * ((end + per_block - 1) // per_block - block)
            words = carray(_pointer(scratch + 8 * LANES), (count,), np.uint32)
            _draw(words, block, _numbers(ordinals + _WORD * tensor, 1)[0], normal, k0, k1)
            skipped = first - per_block * block
            if normal:
                # Memory of its own: in place of the words no vectors would be made.
                z = carray(_pointer(scratch + 8 * LANES + 4 * count), (count,), np.float32)
                _box_muller(words, z)
                _perturb(w, copy, z[skipped:], job[_MODE], amplitude, d, lanes)
            else:
                _perturb(w, copy, words.view(np.int16)[skipped:], job[_MODE], amplitude, d, lanes)
        if _take(address + _WORD * _FINISHED) == job[_UNITS] - 1:
            carray(_pointer(job[_TAKEN]), (1,), np.uint8)[0] = 1


def compiled() -> Any:
    """The worker, compiled or from numba's cache; where that cannot be read or written, compiled for this process."""
    # The cache looks at this file alone, and the code holds constants of others: let their values be part of its name.
    constants = (ROUNDS, MULTIPLIERS, WEYL, LANES, NORM_FLOOR, UNIFORM_DENOMINATOR, LOG, SIN, COS)
    _work.__qualname__ = f"{_work.__name__}_{zlib.crc32(repr(constants).encode()):08x}"
    signature = types.void(types.int64)
    try:
        return cfunc(signature, cache=True)(_work)
    except Exception:  # of a full disk, a damaged file, or no folder to write to
        return cfunc(signature)(_work)
