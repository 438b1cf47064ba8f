"""Noise on float32 weights on a CPU: draw, scale, copy and add in one pass, compiled by numba.

The weights are cut into units of work, of which each of torch's own OpenMP threads does a run, the same one each time:
a core finds in its cache what it has left there. A unit is done in parts, whose draws are made in a buffer that stays
in the nearest cache, while memory brings the next part's weights. Weights in channels_last memory are brought in
row-major order there, and back.

Each step rounds as the reference does (:mod:`smoothout.scaling`), so that the bits are the same: products and sums are
rounded one by one, squares of uniform draws are summed as integers, other squares in the published lanes. So nothing
here may be compiled with fastmath.
"""

import functools
import math
import struct
import zlib
from types import FunctionType
from typing import Any

import numba
import numpy as np
from llvmlite import ir
from numba import cfunc, types
from numba.core import cgutils
from numba.core.registry import cpu_target
from numba.extending import intrinsic

from smoothout._types import Scale
from smoothout.noise.draws import NORMAL_PER_BLOCK, UNIFORM_DENOMINATOR, UNIFORM_PER_BLOCK
from smoothout.noise.elementary import COS, HALF_STEP, LN2, LOG, QUARTER, SIN, SQRT_HALF
from smoothout.noise.philox import MULTIPLIERS, ROUNDS, WEYL
from smoothout.scaling import LANES, NORM_FLOOR

#: What a worker is given: the address of these int64 numbers; those up to the amplitude are of one run.
FIELDS = (
    "finished",  # units that are done, which workers count
    "task",  # DRAW, REDRAW or RESTORE
    "seed0",  # low word
    "seed1",  # high word
    "step",
    "stream",
    "draw",
    "amplitude",  # the bits of a float64
    "units",  # how many
    "table",  # address of (U, 5) int64: tensor, first element, end, elements of a filter, positions (0: row-major)
    "weights",  # address of (T,) int64, the addresses of float32 arrays
    "copies",  # the same
    "ordinals",  # address of (T,) int64
    "firsts",  # the same: indices, in the full weights, of the arrays' first elements
    "norms",  # the same: addresses of float64 arrays, which keep the norms of each copy's filters
    "scratch",  # address
    "scratch_bytes",  # of a worker
    "streamed",  # 1 if copies go past the cache, 2 if weights that come back do, too
    "taken",  # address of a byte, set when the last unit is done
    "worker",  # address of a function without arguments that returns a worker's number
    "workers",  # the same for how many there are; 0 if one is alone
)
#: How the fields of one run are packed.
RUN = struct.Struct("=7qd")
(
    _FINISHED, _TASK, _SEED0, _SEED1, _STEP_NUMBER, _STREAM, _COPY_NUMBER, _AMPLITUDE, _UNITS, _TABLE, _WEIGHTS,
    _COPIES, _ORDINALS, _FIRSTS, _NORMS, _SCRATCH, _SCRATCH_BYTES, _STREAMED, _TAKEN, _WORKER, _WORKERS,
) = range(len(FIELDS))  # fmt: skip

#: Copy the weights and add noise; add noise to what the copies hold; copy them back.
DRAW, REDRAW, RESTORE = range(3)

#: Neither Python nor C calls the parts of a worker.
njit = functools.partial(numba.njit, error_model="numpy", no_cpython_wrapper=True, no_cfunc_wrapper=True)

_M0, _M1 = map(np.uint64, MULTIPLIERS)
_W0, _W1 = map(np.uint32, WEYL)
_LOW, _SHIFT = np.uint64(0xFFFFFFFF), np.uint64(32)
_STEP, _TWO_STEPS = np.float32(1 / UNIFORM_DENOMINATOR), np.float32(2 / UNIFORM_DENOMINATOR)
_WORDS_PER_BLOCK, _WORD, _COLUMNS = 4, 8, 5  # 32-bit words of a block of draws, bytes of a field, columns of the table
_VECTOR, _LINE = 16, 64  # float32 of a vector that is streamed, and its bytes
_LOG, _SIN, _COS = (tuple(map(np.float32, series)) for series in (LOG, SIN, COS))
_LN2, _SQRT_HALF, _HALF_STEP = map(np.float32, (LN2, SQRT_HALF, HALF_STEP))
_U_HALF, _U_STEP, _ONE, _TWO = (np.float32(value) for value in (0.5, 2.0**-32, 1, 2))
_QUARTER, _EIGHTH = np.uint32(QUARTER), np.uint32(1 << (QUARTER - 1))
_MANTISSA, _EXPONENT, _BIAS = np.int32((1 << 23) - 1), np.int32(23), np.int32(126)  # of a float32 in [1/2, 1)
_ONE_HALF_BITS = np.int32(126 << 23)
_INT64, _INT32, _INT16, _BYTE, _FLOAT = ir.IntType(64), ir.IntType(32), ir.IntType(16), ir.IntType(8), ir.FloatType()


#: Elements of a part, or one filter if that has more.
PART = 512
#: Blocks of draws that are made at a time.
CHUNK = 32


def scratch_bytes(longest: int, normal: bool) -> int:
    """Of a worker with units up to so long: lanes of a sum, words of whole blocks, their draws, weights."""
    per_block = NORMAL_PER_BLOCK if normal else UNIFORM_PER_BLOCK
    blocks = -(-longest // per_block) + 1
    return 8 * LANES + 4 * (_WORDS_PER_BLOCK + per_block) * blocks + 8 * -(-longest // 2)


def _pointer_to(element: Any) -> Any:
    """A function that makes an address a pointer, which can be indexed; arrays would take longer to compile."""

    @intrinsic
    def pointer(_context: Any, _address: Any) -> Any:
        def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            return builder.inttoptr(arguments[0], context.get_value_type(signature.return_type))

        return types.CPointer(element)(types.int64), generate

    return pointer


_floats, _doubles = _pointer_to(types.float32), _pointer_to(types.float64)
_words, _halves = _pointer_to(types.uint32), _pointer_to(types.int16)
_numbers, _bytes = _pointer_to(types.int64), _pointer_to(types.uint8)


@intrinsic
def _prefetch(_context: Any, _address: Any) -> Any:
    """Ask for the line at an address, to the second cache; any address may be asked for."""

    def generate(context: Any, builder: Any, _signature: Any, arguments: Any) -> Any:
        pointer = _BYTE.as_pointer()
        kind = ir.FunctionType(ir.VoidType(), [pointer, _INT32, _INT32, _INT32])
        function = builder.module.declare_intrinsic("llvm.prefetch", [pointer], kind)
        read, nearness, data = (ir.Constant(_INT32, number) for number in (0, 2, 1))
        builder.call(function, [builder.inttoptr(arguments[0], pointer), read, nearness, data])
        return context.get_dummy_value()

    return types.void(types.int64), generate


def _attribute(text: str) -> Any:
    """A function that, called first in another one, gives that an attribute of LLVM's."""

    @intrinsic
    def give(_context: Any) -> Any:
        def generate(context: Any, builder: Any, _signature: Any, _arguments: Any) -> Any:
            set.add(builder.function.attributes, text)  # llvmlite's own add knows few of them
            return context.get_dummy_value()

        return types.void(), generate

    return give


#: Vectors may be of 512 bits; of 256 is what LLVM makes for most processors that have both.
_wide = _attribute('"prefer-vector-width"="512"')
_not_inlined = _attribute("noinline")


@intrinsic
def _ask(_context: Any, _function: Any) -> Any:
    """What the C function at an address returns, which has no arguments."""

    def generate(_target: Any, builder: Any, _signature: Any, arguments: Any) -> Any:
        function = builder.inttoptr(arguments[0], ir.FunctionType(_INT32, []).as_pointer())
        return builder.sext(builder.call(function, []), _INT64)

    return types.int64(types.int64), generate


@intrinsic
def _count(_context: Any, _address: Any, _more: Any) -> Any:
    """The number at an address, raised by some more, whoever else does so; what was written before becomes visible."""

    def generate(_target: Any, builder: Any, _signature: Any, arguments: Any) -> Any:
        place = builder.inttoptr(arguments[0], _INT64.as_pointer())
        return builder.add(builder.atomic_rmw("add", place, arguments[1], "acq_rel"), arguments[1])

    return types.int64(types.int64, types.int64), generate


@intrinsic
def _bits(_context: Any, _value: Any) -> Any:
    """A float32's bits as an integer."""

    def generate(_target: Any, builder: Any, _signature: Any, arguments: Any) -> Any:
        return builder.bitcast(arguments[0], _INT32)

    return types.int32(types.float32), generate


@intrinsic
def _of_bits(_context: Any, _value: Any) -> Any:
    """The float32 of some bits."""

    def generate(_target: Any, builder: Any, _signature: Any, arguments: Any) -> Any:
        return builder.bitcast(arguments[0], _FLOAT)

    return types.float32(types.int32), generate


@intrinsic
def _multiply_add(_context: Any, _a: Any, _b: Any, _c: Any) -> Any:
    """a b + c of float32, in one operation where the processor has it, rounded once or twice."""

    def generate(_target: Any, builder: Any, _signature: Any, arguments: Any) -> Any:
        function = builder.module.declare_intrinsic("llvm.fmuladd", [_FLOAT], ir.FunctionType(_FLOAT, [_FLOAT] * 3))
        return builder.call(function, arguments)

    return types.float32(types.float32, types.float32, types.float32), generate


@intrinsic
def _sum_of_pairs(_context: Any, _halves: Any, _start: Any, _times: Any) -> Any:
    """The sum of h (h + 1) over 16-bit numbers h from a start, so many times 32 of them; needs AVX512BW.

    One operation makes h (-h - 1) of 32 numbers and adds them two by two, which fits in 32 bits. LLVM makes no use of
    it for sums in 64 bits.
    """

    def generate(_target: Any, builder: Any, _signature: Any, arguments: Any) -> Any:
        pointer, start, times = arguments
        halves, pairs, sums = ir.VectorType(_INT16, 32), ir.VectorType(_INT32, 16), ir.VectorType(_INT64, 8)
        kind = ir.FunctionType(pairs, [halves, halves])
        products = cgutils.get_or_insert_function(builder.module, kind, "llvm.x86.avx512.pmaddw.d.512")
        low, shift = ir.Constant(sums, [0xFFFFFFFF] * 8), ir.Constant(sums, [32] * 8)
        total = cgutils.alloca_once_value(builder, ir.Constant(sums, None))
        with cgutils.for_range(builder, times) as loop:
            index = builder.add(start, builder.mul(loop.index, ir.Constant(_INT64, 32)))
            h = builder.load(builder.bitcast(builder.gep(pointer, [index]), halves.as_pointer()), align=2)
            negative = builder.call(products, [h, builder.xor(h, ir.Constant(halves, [-1] * 32))])
            found = builder.bitcast(builder.sub(ir.Constant(pairs, None), negative), sums)
            summed = builder.add(builder.load(total), builder.and_(found, low))
            builder.store(builder.add(summed, builder.lshr(found, shift)), total)
        kind = ir.FunctionType(_INT64, [sums])
        summed = cgutils.get_or_insert_function(builder.module, kind, "llvm.vector.reduce.add.v8i64")
        return builder.call(summed, [builder.load(total)])

    return types.int64(types.CPointer(types.int16), types.int64, types.int64), generate


@intrinsic
def _stream_line(_context: Any, _to: Any, _from: Any) -> Any:
    """Copy 64 bytes between addresses, past the cache; where they go is a multiple of 64."""

    def generate(context: Any, builder: Any, _signature: Any, arguments: Any) -> Any:
        pointer = ir.VectorType(_FLOAT, _VECTOR).as_pointer()
        to, source = (builder.inttoptr(address, pointer) for address in arguments)
        stored = builder.store(builder.load(source, align=4), to, align=_LINE)
        stored.set_metadata("nontemporal", builder.module.add_metadata([ir.Constant(_INT32, 1)]))
        return context.get_dummy_value()

    return types.void(types.int64, types.int64), generate


@njit()
def _draw(words: Any, blocks: Any, first: Any, ordinal: Any, tag: Any, k0: Any, k1: Any) -> None:
    """Philox of consecutive blocks, with words masked as in :func:`smoothout.noise.philox.philox4x32`."""
    _wide()
    _not_inlined()
    for block in range(blocks):
        index = np.uint64(first + block)
        c0, c1 = index & _LOW, index >> _SHIFT
        c2, c3 = np.uint64(ordinal), np.uint64(tag)
        a0, a1 = k0, k1
        for _ in range(ROUNDS):
            product0, product1 = (c0 & _LOW) * _M0, (c2 & _LOW) * _M1
            c0 = (product1 >> _SHIFT) ^ c1 ^ np.uint64(a0)
            c2 = (product0 >> _SHIFT) ^ c3 ^ np.uint64(a1)
            c1, c3 = product1, product0
            a0, a1 = np.uint32(a0 + _W0), np.uint32(a1 + _W1)
        at = _WORDS_PER_BLOCK * block
        words[at], words[at + 1] = np.uint32(c0), np.uint32(c1)
        words[at + 2], words[at + 3] = np.uint32(c2), np.uint32(c3)


# Horner's rule is written out: over a loop the compiler makes no vectors.
@njit()
def _log_series(x: Any) -> Any:
    c = _LOG
    return (((c[4] * x + c[3]) * x + c[2]) * x + c[1]) * x + c[0]


@njit()
def _sine_series(x: Any) -> Any:
    c = _SIN
    return (((c[4] * x + c[3]) * x + c[2]) * x + c[1]) * x + c[0]


@njit()
def _cosine_series(x: Any) -> Any:
    c = _COS
    return ((((c[5] * x + c[4]) * x + c[3]) * x + c[2]) * x + c[1]) * x + c[0]


@njit()
def _log(x: Any) -> Any:
    """:func:`smoothout.noise.elementary.log`; the exponent is read from the number's bits."""
    bits = _bits(x)
    mantissa = _of_bits(np.int32((bits & _MANTISSA) | _ONE_HALF_BITS))
    exponent = np.float32(np.int32((bits >> _EXPONENT) - _BIAS))
    low = mantissa < _SQRT_HALF
    mantissa = _TWO * mantissa if low else mantissa
    exponent = exponent - _ONE if low else exponent
    s = (mantissa - _ONE) / (mantissa + _ONE)
    return exponent * _LN2 + _TWO * s * _log_series(s * s)


@njit()
def _box_muller(words: Any, z: Any, count: Any) -> None:
    """Normal draws of pairs of words; see :func:`smoothout.noise.draws.normal`."""
    _wide()
    for pair in range(count // 2):
        a, b = words[2 * pair], words[2 * pair + 1]
        radius = math.sqrt(-_TWO * _log((np.float32(a) + _U_HALF) * _U_STEP))
        quarter = np.uint32(np.uint32(b + _EIGHTH) >> _QUARTER)
        rest = np.int32(np.uint32(b - np.uint32(quarter << _QUARTER)))
        t = np.float32(np.int32(2 * rest + 1)) * _HALF_STEP
        square = t * t
        sine, cosine = t * _sine_series(square), _cosine_series(square)
        odd = (quarter & np.uint32(1)) != 0
        one, other = (cosine, sine) if odd else (sine, cosine)
        one = -one if (quarter & np.uint32(2)) != 0 else one
        other = -other if (np.uint32(quarter + np.uint32(1)) & np.uint32(2)) != 0 else other
        z[2 * pair] = radius * other
        z[2 * pair + 1] = radius * one


@njit()
def _uniform_at(halves: Any, i: Any) -> Any:
    """A uniform draw of a half of a word; see :func:`smoothout.noise.draws.uniform_integers`."""
    return _multiply_add(np.float32(np.int32(halves[i])), _TWO_STEPS, _STEP)  # (2 h + 1) / 65536, without rounding


@njit()
def _normal_at(z: Any, i: Any) -> Any:
    """A normal draw that is made already."""
    return z[i]


@njit()
def _squares_by_number(halves: Any, start: Any, d: Any) -> Any:
    """The sum of (2 h + 1)^2 = 4 h^2 + 4 h + 1, whose squares fit in 32 bits."""
    _wide()
    squares = total = np.int64(0)
    for i in range(start, start + d):
        h = np.int32(halves[i])
        squares += np.int32(h * h)
        total += h
    return 4 * squares + 4 * total + d


@njit()
def _squares_by_pairs(halves: Any, start: Any, d: Any) -> Any:
    """The same in half of the time."""
    _wide()
    times = d // 32
    done = 32 * times
    return 4 * _sum_of_pairs(halves, start, times) + done + _squares_by_number(halves, start + done, d - done)


# What the compiler may use here, by the name of LLVM; it is part of what numba's cache goes by.
_FEATURES = cpu_target.target_context.codegen().magic_tuple()[-1]
_squares_of_integers = _squares_by_pairs if "+avx512bw" in _FEATURES else _squares_by_number


@njit()
def _squares(values: Any, start: Any, d: Any, lanes: Any) -> Any:
    """The sum of squares in the order of :func:`smoothout.scaling.blocked_sum`."""
    _wide()
    _not_inlined()  # where it is used, the compiler would make slower code of all
    left = d if d < LANES else LANES
    for lane in range(left):
        value = np.float64(values[start + lane])
        lanes[lane] = value * value
    for first in range(start + LANES, start + d, LANES):
        rest = start + d - first
        for lane in range(rest if rest < LANES else LANES):
            value = np.float64(values[first + lane])
            lanes[lane] += value * value
    while left > 1:
        half = (left + 1) // 2
        for lane in range(left - half):
            lanes[lane] += lanes[half + lane]
        left = half
    return lanes[0]


def _part(*kind: object) -> Any:
    """njit for a function that is made anew for each kind of worker, under a name of its own.

    What numba's cache holds of one process must not be taken for that of another, whose numbers in names are the same.
    """

    def compile_(function: Any) -> Any:
        function.__qualname__ = "_".join(map(str, (function.__name__, *kind)))
        return njit()(function)

    return compile_


@njit()
def _move(to: Any, source: Any, count: Any, streamed: Any) -> None:
    """Copy float32 values between addresses; whole lines past the cache, if so wanted."""
    _wide()
    head = lines = 0
    if streamed:
        head = (_LINE - to % _LINE) % _LINE // 4
        head = head if head < count else count
        lines = (count - head) // _VECTOR
    written, read = _floats(to), _floats(source)
    for i in range(head):
        written[i] = read[i]
    for line in range(lines):
        _stream_line(to + 4 * head + _LINE * line, source + 4 * head + _LINE * line)
    for i in range(head + _VECTOR * lines, count):
        written[i] = read[i]


@njit()
def _row_major(to: Any, w: Any, count: Any, d: Any, positions: Any) -> None:
    """Filters of channels_last memory, element (position, channel), as (channel, position)."""
    _wide()
    channels = d // positions
    for start in range(0, count, d):
        for channel in range(channels):
            for position in range(positions):
                to[start + channel * positions + position] = w[start + position * channels + channel]


def _add_by(scale: Scale, normal: bool) -> Any:
    """A function that puts clean values and noise in the place of weights, from a start to an end.

    ``clean`` is the weights themselves unless it is ``apart`` from them. Two loops of each: where arrays may be the
    same, no vectors are made.
    """
    z = _normal_at if normal else _uniform_at

    @_part("constant", normal)
    def add(w: Any, clean: Any, apart: Any, drawn: Any, start: Any, end: Any, factor: Any) -> None:
        _wide()
        if apart:
            for i in range(start, end):
                w[i] = clean[i] + z(drawn, i) * factor
        else:
            for i in range(start, end):
                w[i] += z(drawn, i) * factor

    @_part("weight", normal)
    def add_by_weight(w: Any, clean: Any, apart: Any, drawn: Any, start: Any, end: Any, amplitude: Any) -> None:
        _wide()
        if apart:
            for i in range(start, end):
                value = clean[i]
                w[i] = value + z(drawn, i) * (abs(value) * amplitude)
        else:
            for i in range(start, end):
                value = w[i]
                w[i] = value + z(drawn, i) * (abs(value) * amplitude)

    return add_by_weight if scale == "weight" else add


def _add_by_element_by(normal: bool) -> Any:
    """The same for filters of one element."""
    z = _normal_at if normal else _uniform_at

    @_part("element", normal)
    def add_by_element(w: Any, clean: Any, drawn: Any, count: Any, amplitude: Any) -> None:
        _wide()
        for i in range(count):
            value, one = clean[i], z(drawn, i)
            factor = np.float32(amplitude * np.float64(abs(value)) / (np.float64(abs(one)) + NORM_FLOOR))
            w[i] = value + one * factor

    return add_by_element


def _add_filters_by(normal: bool) -> Any:
    """The same for whole filters, by their norms; the clean ones' are found where weights are drawn for first."""
    add, add_by_element = _add_by("none", normal), _add_by_element_by(normal)

    @_part("filters", normal)
    def add_filters(
        w: Any, clean: Any, apart: Any, drawn: Any, count: Any, d: Any, amplitude: Any, norms: Any, lanes: Any,
        known: Any,
    ) -> None:  # fmt: skip
        if d == 1:
            add_by_element(w, clean, drawn, count, amplitude)
            return
        for number in range(count // d):
            start = number * d
            if normal:
                z_norm = math.sqrt(_squares(drawn, start, d, lanes))
            else:
                z_norm = math.sqrt(np.float64(_squares_of_integers(drawn, start, d))) / UNIFORM_DENOMINATOR
            if not known:
                norms[number] = math.sqrt(_squares(clean, start, d, lanes))
            factor = np.float32(amplitude * norms[number] / (z_norm + NORM_FLOOR))
            add(w, clean, apart, drawn, start, start + d, factor)

    return add_filters


#: Of a kind of noise; :func:`compiled` puts others in their place.
_BY_FILTER, _NORMAL, _CHANNELS_LAST, _PER_BLOCK = False, False, False, UNIFORM_PER_BLOCK
_add: Any = None
_add_filters: Any = None


# All in one function: each level of calls is compiled with all that is below it once more.
def _work(address: int) -> None:  # noqa: C901, PLR0912, PLR0915
    """Do this worker's units."""
    _wide()
    job = _numbers(address)
    worker, workers = np.int64(0), np.int64(1)
    if job[_WORKERS] != 0:
        worker, workers = _ask(job[_WORKER]), _ask(job[_WORKERS])
    start, stop = job[_UNITS] * worker // workers, job[_UNITS] * (worker + 1) // workers
    scratch = job[_SCRATCH] + worker * job[_SCRATCH_BYTES]
    words = scratch + 8 * LANES
    task, amplitude = job[_TASK], _doubles(address + _WORD * _AMPLITUDE)[0]
    # The key is drawn as NoiseKey.words() has it.
    seed0, seed1 = np.uint32(job[_SEED0]), np.uint32(job[_SEED1])
    _draw(_words(words), 1, job[_STEP_NUMBER], job[_STREAM], job[_COPY_NUMBER], seed0, seed1)
    k0, k1 = _words(words)[0], _words(words)[1]
    for u in range(start, stop):
        unit = _numbers(job[_TABLE] + _COLUMNS * _WORD * u)
        tensor, d, positions = unit[0], unit[3], unit[4]
        part = PART // d * d if d < PART else d  # no filter is cut
        for first in range(unit[1], unit[2], part):
            end = first + part if first + part < unit[2] else unit[2]
            count = end - first
            weights = _numbers(job[_WEIGHTS])[tensor] + 4 * first
            copies = _numbers(job[_COPIES])[tensor] + 4 * first
            clean = weights if task == DRAW else copies
            if task != REDRAW:
                _move(copies if task == DRAW else weights, clean, count, job[_STREAMED] > (0 if task == DRAW else 1))
                if task == RESTORE:
                    continue
            place = first + _numbers(job[_FIRSTS])[tensor]
            block = place // _PER_BLOCK
            blocks = (place + count + _PER_BLOCK - 1) // _PER_BLOCK - block
            skipped = place - _PER_BLOCK * block
            # Memory of its own for each: in place of others no vectors would be made.
            z = words + 4 * _WORDS_PER_BLOCK * blocks
            room = z + 4 * _PER_BLOCK * blocks
            for done in range(0, blocks, CHUNK):
                # Of the next part, a few lines at a time: more at once than can be on their way would be waited for.
                for line in range(4 * (part + _PER_BLOCK * done), 4 * (part + _PER_BLOCK * (done + CHUNK)), _LINE):
                    _prefetch(weights + line)
                    if task == REDRAW:
                        _prefetch(copies + line)
                some, at = CHUNK if done + CHUNK < blocks else blocks - done, words + 4 * _WORDS_PER_BLOCK * done
                _draw(_words(at), some, block + done, _numbers(job[_ORDINALS])[tensor], 1 if _NORMAL else 0, k0, k1)
            drawn = _halves(words + 2 * skipped)
            if _NORMAL:
                _box_muller(_words(words), _floats(z), _PER_BLOCK * blocks)
                drawn = _floats(z + 4 * skipped)
            w, source, apart = _floats(weights), _floats(clean), task == REDRAW
            if _CHANNELS_LAST and positions != 0:
                w, source, apart = _floats(room), _floats(room), False
                _row_major(w, _floats(clean), count, d, positions)
            if _BY_FILTER:
                norms = _doubles(_numbers(job[_NORMS])[tensor] + _WORD * (first // d))
                _add_filters(w, source, apart, drawn, count, d, amplitude, norms, _doubles(scratch), task == REDRAW)
            else:
                _add(w, source, apart, drawn, 0, count, np.float32(amplitude))
            if _CHANNELS_LAST and positions != 0:
                _row_major(_floats(weights), w, count, d, d // positions)  # and back
    # This also lets what was streamed become visible.
    if _count(address + _WORD * _FINISHED, stop - start) == job[_UNITS]:
        _bytes(job[_TAKEN])[0] = 1


def _kind(scale: Scale, normal: bool, channels_last: bool) -> dict[str, Any]:
    """The names that a worker knows a kind of noise by."""
    return {
        "_BY_FILTER": scale == "filter",
        "_NORMAL": normal,
        "_CHANNELS_LAST": channels_last,
        "_PER_BLOCK": NORMAL_PER_BLOCK if normal else UNIFORM_PER_BLOCK,
        "_add": _add_by(scale, normal),
        "_add_filters": _add_filters_by(normal),
    }


def compiled(scale: Scale, normal: bool, channels_last: bool) -> Any:
    """A worker, compiled or from numba's cache; where that cannot be read or written, compiled for this process.

    Args:
        scale, normal: Of the noise.
        channels_last: Whether it also takes weights in channels_last memory.
    """
    # The cache looks at this file alone, and the code holds constants of others: let their values be part of its name.
    constants = (ROUNDS, MULTIPLIERS, WEYL, LANES, NORM_FLOOR, UNIFORM_DENOMINATOR, LOG, SIN, COS, HALF_STEP)
    kind = (scale, "normal" if normal else "uniform", "channels_last" if channels_last else "row_major")
    name = "_".join(("work", *kind, f"{zlib.crc32(repr(constants).encode()):08x}"))
    # A function of its own for each kind, so that only what it needs is compiled.
    work = FunctionType(_work.__code__, globals() | _kind(scale, normal, channels_last), name)
    work.__qualname__ = name
    signature = types.void(types.int64)
    try:
        return cfunc(signature, cache=True)(work)
    except Exception:  # of a full disk, a damaged file, or no folder to write to
        return cfunc(signature)(work)
