"""Noise on weights on a GPU: draw, scale, copy and add in one launch over all tensors, compiled by Triton.

Each program takes one row of a table, a piece of a tensor or some of its filters. Products and sums are rounded one by
one as in the reference (:mod:`smoothout.scaling`), so that the bits are the same: ``enable_fp_fusion=False`` at launch.
Squares of uniform draws are summed as integers, other squares in the published lanes.
"""

import triton
import triton.language as tl

from smoothout.noise import elementary, philox
from smoothout.scaling import LANES, NORM_FLOOR

#: Columns of the table, int64: addresses of the weights and of their copies, ordinal, first element and end, elements
#: of a filter, and of a filter in channels_last memory the positions (else 1).
COLUMNS = ("weights", "copies", "ordinal", "first", "end", "d", "positions")
#: Elements that a program holds at a time, and those of a piece of a tensor.
TILE, PIECE = 1024, 4096
#: Filters up to this length are taken many at a time, longer ones by lanes of sums.
SHORT, LONG = 32, LANES

_COLUMNS, _TILE, _SHORT, _LANES = map(tl.constexpr, (len(COLUMNS), TILE, SHORT, LANES))
_MANY, _FEW = tl.constexpr(TILE // SHORT), tl.constexpr(TILE // LONG)
_FLOOR, _ROUNDS = tl.constexpr(NORM_FLOOR), tl.constexpr(philox.ROUNDS)
_LOG0, _LOG1, _LOG2, _LOG3, _LOG4 = map(tl.constexpr, elementary.LOG)
_SIN0, _SIN1, _SIN2, _SIN3, _SIN4 = map(tl.constexpr, elementary.SIN)
_COS0, _COS1, _COS2, _COS3, _COS4, _COS5 = map(tl.constexpr, elementary.COS)
_LN2, _SQRT_HALF = tl.constexpr(elementary.LN2), tl.constexpr(elementary.SQRT_HALF)
_HALF_STEP = tl.constexpr(elementary.HALF_STEP)
_QUARTER, _EIGHTH = tl.constexpr(elementary.QUARTER), tl.constexpr(1 << (elementary.QUARTER - 1))


@triton.jit
def _log(x):
    """:func:`smoothout.noise.elementary.log`."""
    bits = x.to(tl.int32, bitcast=True)
    mantissa = ((bits & 0x7FFFFF) | 0x3F000000).to(tl.float32, bitcast=True)
    exponent = ((bits >> 23) - 126).to(tl.float32)
    low = mantissa < _SQRT_HALF
    mantissa = tl.where(low, 2.0 * mantissa, mantissa)
    exponent = tl.where(low, exponent - 1.0, exponent)
    s = tl.div_rn(mantissa - 1.0, mantissa + 1.0)
    q = s * s
    series = (((_LOG4 * q + _LOG3) * q + _LOG2) * q + _LOG1) * q + _LOG0
    return exponent * _LN2 + 2.0 * s * series


@triton.jit
def _box_muller(a, b, odd_lane):
    """One normal draw of a pair of words, the sine's where the lane is odd."""
    radius = tl.sqrt_rn(-2.0 * _log((a.to(tl.float32) + 0.5) * 2.3283064365386963e-10))
    quarter = (b + _EIGHTH) >> _QUARTER  # 4 wraps to 0, which is the same
    rest = (b - (quarter << _QUARTER)).to(tl.int32, bitcast=True)
    t = (2 * rest + 1).to(tl.float32) * _HALF_STEP
    q = t * t
    sine = t * ((((_SIN4 * q + _SIN3) * q + _SIN2) * q + _SIN1) * q + _SIN0)
    cosine = ((((_COS5 * q + _COS4) * q + _COS3) * q + _COS2) * q + _COS1) * q + _COS0
    # cos(x) = sin(x + a quarter)
    turned = tl.where(odd_lane, quarter, quarter + 1) & 3
    value = tl.where((turned & 1) == 1, cosine, sine)
    return radius * tl.where(turned >= 2, -value, value)


@triton.jit
def _integers(index, ordinal, key):
    """The odd integers k of uniform draws, int32; see :func:`smoothout.noise.draws.uniform_integers`."""
    block = index >> 3
    c0, c1 = block.to(tl.uint32), (block >> 32).to(tl.uint32)
    w0, w1, w2, w3 = tl.philox(key, c0, c1, ordinal.to(tl.uint32) + 0 * c0, 0 * c0, _ROUNDS)
    lane = (index & 7).to(tl.uint32)
    word = tl.where(lane < 4, tl.where(lane < 2, w0, w1), tl.where(lane < 6, w2, w3))
    half = ((word >> (16 * (lane & 1))) & 0xFFFF).to(tl.int32)
    return 2 * tl.where(half >= 32768, half - 65536, half) + 1


@triton.jit
def _normal(index, ordinal, key):
    """Normal draws; see :func:`smoothout.noise.draws.normal`."""
    block = index >> 2
    c0, c1 = block.to(tl.uint32), (block >> 32).to(tl.uint32)
    w0, w1, w2, w3 = tl.philox(key, c0, c1, ordinal.to(tl.uint32) + 0 * c0, 0 * c0 + 1, _ROUNDS)
    first = (index & 3) < 2
    return _box_muller(tl.where(first, w0, w2), tl.where(first, w1, w3), (index & 1) == 1)


@triton.jit
def _draw(index, ordinal, key, NORMAL: tl.constexpr):
    """z, float32."""
    if NORMAL:
        z = _normal(index, ordinal, key)
    else:
        z = _integers(index, ordinal, key).to(tl.float32) * 1.52587890625e-05  # / 65536
    return z


@triton.jit
def _place(index, d, positions, PERMUTED: tl.constexpr):
    """Where in memory an element lies, given its row-major index."""
    if PERMUTED:
        start = index // d * d
        inside = index - start
        index = start + inside % positions * (d // positions) + inside // positions
    return index


@triton.jit
def _add_piece(
    w, copy, source, fresh, ordinal, first, end, d, positions, key, amplitude,
    SCALE: tl.constexpr, NORMAL: tl.constexpr, PERMUTED: tl.constexpr,
):  # fmt: skip
    """Elements from the first to the end, each by itself: the source's plus noise, and a copy where it is fresh."""
    for start in range(0, end - first, _TILE):
        index = first + start + tl.arange(0, _TILE)
        mask = index < end
        at = _place(index, d, positions, PERMUTED)
        stored = tl.load(source + at, mask=mask)
        value = stored.to(tl.float32)
        z = _draw(index, ordinal, key, NORMAL)
        if SCALE == 0:
            theta = z * amplitude.to(tl.float32)
        elif SCALE == 1:
            theta = z * (tl.abs(value) * amplitude.to(tl.float32))
        else:  # filters of one element
            floor = tl.full((), _FLOOR, tl.float64)
            factor = amplitude * tl.abs(value).to(tl.float64) / (tl.abs(z).to(tl.float64) + floor)
            theta = z * factor.to(tl.float32)
        tl.store(copy + at, stored, mask=mask & fresh)
        tl.store(w + at, (value + theta).to(stored.dtype), mask=mask)


@triton.jit
def _lane(place, lanes, WIDTH: tl.constexpr):
    """Which lane to hold at a place, so that halving WIDTH places adds what halving ``lanes`` lanes adds.

    Lanes are halved to ceil(lanes / 2), places to WIDTH / 2; a place that has no lane holds 0.
    """
    lane = 0 * place
    inside = place >= 0
    for weight in tl.static_range(0, 8):
        if (1 << weight) < WIDTH:
            level = WIDTH // (2 << weight)  # 2^level-th part of the lanes are left before this halving
            before = (lanes + level - 1) // level
            after = (lanes + 2 * level - 1) // (2 * level)
            lane += ((place >> weight) & 1) * after
            inside = inside & (lane < before)
    return lane, inside


@triton.jit
def _fold(total, ROWS: tl.constexpr, WIDTH: tl.constexpr):
    """Sums of rows, upper half to lower until one place is left."""
    if WIDTH == 1:
        folded = tl.reshape(total, [ROWS])
    else:
        halves = tl.sum(tl.reshape(total, [ROWS, 2, WIDTH // 2]), axis=1)
        folded = _fold(halves, ROWS, WIDTH // 2)
    return folded


@triton.jit
def _add_filters(
    w, copy, source, fresh, ordinal, first, end, d, positions, key, amplitude,
    ROWS: tl.constexpr, WIDTH: tl.constexpr, NORMAL: tl.constexpr, PERMUTED: tl.constexpr,
):  # fmt: skip
    """Up to ROWS whole filters from the first to the end, by their norms."""
    begin = first + tl.arange(0, ROWS)[:, None] * d
    lane, inside = _lane(tl.arange(0, WIDTH), tl.minimum(d, _LANES).to(tl.int32), WIDTH)
    lane, inside = lane[None, :].to(tl.int64), inside[None, :] & (begin < end)
    of_w = tl.zeros([ROWS, WIDTH], tl.float64)
    of_z = tl.zeros([ROWS, WIDTH], tl.float64)
    of_k = tl.zeros([ROWS, WIDTH], tl.int64)
    for start in range(0, d, _LANES):
        index = begin + start + lane
        mask = inside & (start + lane < d)
        value = tl.load(source + _place(index, d, positions, PERMUTED), mask=mask, other=0.0).to(tl.float64)
        of_w += value * value
        if NORMAL:
            z = tl.where(mask, _normal(index, ordinal, key), 0.0).to(tl.float64)
            of_z += z * z
        else:
            k = tl.where(mask, _integers(index, ordinal, key), 0).to(tl.int64)
            of_k += k * k
    if NORMAL:
        z_norm = tl.sqrt(_fold(of_z, ROWS, WIDTH))
    else:
        z_norm = tl.sqrt(tl.sum(of_k, axis=1).to(tl.float64)) * 1.52587890625e-05
    w_norm = tl.sqrt(_fold(of_w, ROWS, WIDTH))
    factor = (amplitude * w_norm / (z_norm + tl.full((), _FLOOR, tl.float64))).to(tl.float32)
    for start in range(0, d, _LANES):
        index = begin + start + lane
        mask = inside & (start + lane < d)
        at = _place(index, d, positions, PERMUTED)
        stored = tl.load(source + at, mask=mask, other=0.0)
        theta = _draw(index, ordinal, key, NORMAL) * factor[:, None]
        tl.store(copy + at, stored, mask=mask & fresh)
        tl.store(w + at, (stored.to(tl.float32) + theta).to(stored.dtype), mask=mask)


@triton.jit
def _key(seed, step, stream, draw):
    """:meth:`smoothout.noise.draws.NoiseKey.words` as one number."""
    step = step.to(tl.int64)
    c0, c1 = step.to(tl.uint32), (step >> 32).to(tl.uint32)
    low, high, _, _ = tl.philox(seed.to(tl.int64), c0, c1, stream.to(tl.uint32), draw.to(tl.uint32), _ROUNDS)
    return (high.to(tl.int64) << 32) | low.to(tl.int64)


@triton.jit(do_not_specialize=["seed", "step", "stream", "draw", "amplitude_bits"])
def perturb(
    table, taken, seed, step, stream, draw, amplitude_bits,
    SCALE: tl.constexpr, NORMAL: tl.constexpr, PERMUTED: tl.constexpr, ELEMENT: tl.constexpr,
):  # fmt: skip
    """Copy what a row of the table names, unless its copy is held, and put copy plus noise in its place.

    SCALE is 0 for none, 1 for weight, 2 for filter. The seed is the int64 of the same bits, the amplitude that of a
    float64's.
    """
    unit = tl.program_id(0)
    fresh = tl.load(taken + unit) == 0
    row = table + unit.to(tl.int64) * _COLUMNS
    w = tl.load(row).to(tl.pointer_type(ELEMENT))
    copy = tl.load(row + 1).to(tl.pointer_type(ELEMENT))
    source = tl.where(fresh, tl.load(row), tl.load(row + 1)).to(tl.pointer_type(ELEMENT))
    ordinal, first, end = tl.load(row + 2), tl.load(row + 3), tl.load(row + 4)
    d, positions = tl.load(row + 5), tl.load(row + 6)
    key = _key(seed, step, stream, draw)
    amplitude = amplitude_bits.to(tl.int64).to(tl.float64, bitcast=True)
    if SCALE < 2:
        _add_piece(w, copy, source, fresh, ordinal, first, end, d, positions, key, amplitude, SCALE, NORMAL, PERMUTED)
    elif d == 1:  # apart, since SCALE is known when it is compiled
        _add_piece(w, copy, source, fresh, ordinal, first, end, d, positions, key, amplitude, SCALE, NORMAL, PERMUTED)
    elif d <= _SHORT:
        _add_filters(
            w, copy, source, fresh, ordinal, first, end, d, positions, key, amplitude, _MANY, _SHORT, NORMAL, PERMUTED
        )
    else:
        _add_filters(
            w, copy, source, fresh, ordinal, first, end, d, positions, key, amplitude, _FEW, _LANES, NORMAL, PERMUTED
        )
    tl.store(taken + unit, 1)


@triton.jit
def restore(table, taken, ELEMENT: tl.constexpr):
    """Copy back what was taken, once."""
    unit = tl.program_id(0)
    if tl.load(taken + unit) == 1:
        row = table + unit.to(tl.int64) * _COLUMNS
        w = tl.load(row).to(tl.pointer_type(ELEMENT))
        copy = tl.load(row + 1).to(tl.pointer_type(ELEMENT))
        first, end = tl.load(row + 3), tl.load(row + 4)
        for start in range(0, end - first, _TILE):
            index = first + start + tl.arange(0, _TILE)
            mask = index < end
            tl.store(w + index, tl.load(copy + index, mask=mask), mask=mask)
        tl.store(taken + unit, 0)
