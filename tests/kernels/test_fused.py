"""The compiled kernel returns the reference's bits, leaves alone what is not its own, and says if it cannot be used."""

import contextlib
import logging
import os
import subprocess
import sys

import numba
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from smoothout import SmoothOut
from smoothout.kernels import choose, cpu, fused, on_cpu
from smoothout.kernels.on_cpu import FusedOnCPU
from smoothout.noise.draws import UNIFORM_DENOMINATOR, NoiseKey, uniform_integers
from smoothout.scaling import offsets
from smoothout.weights import all_weights

SCALES = ("none", "weight", "filter")
DISTRIBUTIONS = ("uniform", "normal")
OTHER = NoiseKey(8, 9)
#: One element, tails of blocks of 8, whole units, one more, filters of many lengths and of more than a unit.
SHAPES = [
    (),
    (1,),
    (7,),
    (8,),
    (9,),
    (4096,),
    (4097,),
    (40, 1),
    (3, 5),
    (5, 3, 3, 3),
    (2, 5000),
    (1, 20000),
    (300, 257),
]
SHAPES += [(0,), (0, 3), (3, 0), (700, 64), (2, 256), (2, 255), (2, 513)]


def weights_of(shapes, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return all_weights(
        [(str(i), nn.Parameter(torch.randn(shape, generator=generator))) for i, shape in enumerate(shapes)]
    )


def by_reference(weights, key, amplitude, scale, distribution="uniform"):
    return [
        weight.parameter.detach() + theta
        for weight, theta in zip(weights, offsets(weights, key, amplitude, scale, distribution), strict=True)
    ]


def bits(tensor):
    return tensor.detach().contiguous().view(torch.int32).tolist()


@pytest.fixture
def threads(request):
    before = torch.get_num_threads()
    torch.set_num_threads(request.param)
    yield request.param
    torch.set_num_threads(before)


def check(weights, key, amplitude, scale, distribution):
    """Noise by both, to the bit, also in the place of other noise, and the weights come back."""
    before = [bits(weight.parameter) for weight in weights]
    expected = by_reference(weights, key, amplitude, scale, distribution)
    kernel = FusedOnCPU(weights, scale, distribution)
    for _ in range(2):
        for drawn in (key, OTHER, key):
            kernel.perturb(drawn, amplitude)
            for weight, noisy in zip(weights, expected if drawn is key else [], strict=drawn is key):
                assert bits(weight.parameter) == bits(noisy), tuple(noisy.shape)
        kernel.restore()
        assert [bits(weight.parameter) for weight in weights] == before


@pytest.mark.parametrize("threads", [1, 2, 5], indirect=True)
@pytest.mark.parametrize("distribution", DISTRIBUTIONS)
@pytest.mark.parametrize("scale", SCALES)
def test_the_reference_s_bits(scale, distribution, threads):
    check(weights_of(SHAPES), NoiseKey(3, 2**33 + 1, 5, 1), 0.3, scale, distribution)


@pytest.mark.parametrize("distribution", DISTRIBUTIONS)
@pytest.mark.parametrize("scale", SCALES)
def test_channels_last(scale, distribution):
    shapes = [(5, 3, 3, 3), (40, 64, 3, 3), (3, 300, 1, 2), (2, 1500, 2, 2), (0, 3, 2, 2), (3, 2, 2, 3, 2)]
    weights = weights_of(shapes)
    for weight in weights:
        layout = torch.channels_last if weight.parameter.dim() == 4 else torch.channels_last_3d
        weight.parameter.data = weight.parameter.data.to(memory_format=layout)
    assert all(on_cpu.fits(weight, scale) for weight in weights)
    check([*weights_of([(9, 7)]), *weights], NoiseKey(3, 4), 0.3, scale, distribution)


@pytest.mark.parametrize("streamed", [0, 1 << 40])
@pytest.mark.parametrize("offset", [0, 1, 15])
def test_copies_past_the_cache(streamed, offset, monkeypatch):
    monkeypatch.setattr(on_cpu, "STREAMED", streamed)
    monkeypatch.setattr(on_cpu, "BOTH_STREAMED", streamed)
    room = torch.randn(3 * 4099 + offset, generator=torch.Generator().manual_seed(2))
    parts = [nn.Parameter(part) for part in (room[offset : 4099 + offset], room[4099 + offset :])]
    check(all_weights([(str(i), part) for i, part in enumerate(parts)]), NoiseKey(0, 0), 0.3, "none", "uniform")


shapes = st.lists(
    st.one_of(
        st.tuples(st.integers(1, 9000)),
        st.tuples(st.integers(1, 40), st.integers(1, 300)),
        st.tuples(st.integers(1, 9), st.integers(1, 9), st.integers(1, 5), st.integers(1, 5)),
    ),
    min_size=1,
    max_size=4,
)


@given(
    shapes=shapes,
    scale=st.sampled_from(SCALES),
    distribution=st.sampled_from(DISTRIBUTIONS),
    amplitude=st.floats(1e-30, 1e30) | st.floats(-1.0, -1e-3),
    seed=st.integers(0, 2**64 - 1),
    step=st.integers(0, 2**63),
    stream=st.integers(0, 2**32 - 1),
)
def test_the_reference_s_bits_for_any_key_and_amplitude(shapes, scale, distribution, amplitude, seed, step, stream):
    check(weights_of(shapes), NoiseKey(seed, step, stream), amplitude, scale, distribution)


@pytest.mark.parametrize("scale", SCALES)
def test_weights_of_any_bits(scale):
    raw = torch.randint(-(2**31), 2**31, (3000,), generator=torch.Generator().manual_seed(1)).to(torch.int32)
    raw[::7] = 0
    [weight] = all_weights([("w", nn.Parameter(raw.view(torch.float32).view(30, 100)))])
    before = bits(weight.parameter)
    [expected] = by_reference([weight], NoiseKey(0, 0), 0.1, scale)
    kernel = FusedOnCPU([weight], scale, "uniform")
    kernel.perturb(NoiseKey(0, 0), 0.1)
    same = torch.isclose(weight.parameter.detach(), expected, rtol=0, atol=0, equal_nan=True)
    assert same.all()  # nan's bits are left to the processor
    kernel.restore()
    assert bits(weight.parameter) == before


@pytest.mark.parametrize("first", [2**32 - 16, 2**32, 2**35 + 8])
def test_elements_past_32_bits(first):
    size = 100
    [weight] = weights_of([(size,)])
    before = weight.parameter.detach().clone()
    [k] = uniform_integers(NoiseKey(1, 2), [0], [size], torch.device("cpu"), first=first)
    kernel = FusedOnCPU([weight], "none", "uniform")
    kernel._table[:] = torch.tensor([[0, first, first + size, 1, 0]])
    kernel._addresses -= 4 * first  # as if so many elements came before
    kernel._copied_to -= 4 * first
    kernel.perturb(NoiseKey(1, 2), 0.5)
    assert torch.equal(weight.parameter.detach(), before + k / UNIFORM_DENOMINATOR * 0.5)
    kernel.restore()
    assert torch.equal(weight.parameter.detach(), before)


def test_nothing_beside_the_weights_is_written():
    room = torch.full((30, 100), 7.0)
    parts = [nn.Parameter(room[2 * i + 1, : 91 + i]) for i in range(5)]
    kernel = FusedOnCPU(all_weights([(str(i), part) for i, part in enumerate(parts)]), "filter", "uniform")
    kernel.perturb(NoiseKey(0, 0), 0.5)
    inside = torch.zeros(30, 100, dtype=torch.bool)
    for i in range(5):
        inside[2 * i + 1, : 91 + i] = True
    assert (room[inside] != 7).all()
    assert (room[~inside] == 7).all()


def quick(model, **options):
    """Names of the weights that the kernel perturbs."""
    smoother = SmoothOut(model, 0.1, **options)
    return [weight.name for kernel in smoother._fused for weight in kernel.weights]


def test_what_the_kernel_perturbs_and_what_the_reference_does():
    model = nn.Sequential(
        nn.Linear(3, 4), nn.ConvTranspose2d(2, 3, 2), nn.Linear(2, 2).double(), nn.Linear(2, 2).bfloat16()
    )
    model.append(nn.Conv2d(2, 2, 3).to(memory_format=torch.channels_last))
    model.append(nn.Linear(2, 2))
    model[5].weight.data = torch.randn(2, 2).t()
    assert quick(model) == ["0.weight", "0.bias", "1.weight", "1.bias", "4.weight", "4.bias", "5.bias"]
    assert quick(model, scale="filter") == ["0.weight", "0.bias", "1.bias", "4.weight", "4.bias", "5.bias"]
    assert quick(model, distribution="normal") == quick(model)
    assert quick(model, denoise=False) == []


@pytest.mark.parametrize("scale", SCALES)
def test_both_in_one_model(scale, backend):
    model = nn.Sequential(
        nn.Linear(3, 4), nn.Linear(4, 4).double(), nn.ConvTranspose2d(2, 3, 2), nn.Linear(2, 2).half()
    )
    before = [p.detach().clone() for p in model.parameters()]
    smoother = SmoothOut(model, 0.2, scale=scale, seed=4)
    thetas = offsets(all_weights(model), NoiseKey(4, 0), 0.2, scale, "uniform")
    with smoother.perturbed():
        for p, clean, theta in zip(model.parameters(), before, thetas, strict=True):
            assert torch.equal(p, (clean + theta).to(p.dtype))
    assert all(map(torch.equal, model.parameters(), before))


def overlapping():
    room = torch.randn(10)
    return [("a", nn.Parameter(room[:6])), ("b", nn.Parameter(room[4:]))]


def test_weights_that_overlap_are_left_to_the_reference():
    parameters = overlapping()
    before = [p.detach().clone() for _, p in parameters]
    smoother = SmoothOut(parameters, 0.5)
    assert smoother._fused == []
    with smoother.perturbed():
        assert not torch.equal(parameters[1][1], before[1])
    assert all(torch.equal(p, clean) for (_, p), clean in zip(parameters, before, strict=True))


def test_weights_that_come_to_overlap_are_left_to_the_reference():
    parameters = [("a", nn.Parameter(torch.randn(6))), ("b", nn.Parameter(torch.randn(6)))]
    smoother = SmoothOut(parameters, 0.5)
    assert smoother._fused
    with torch.no_grad():
        for (_, p), (_, other) in zip(parameters, overlapping(), strict=True):
            p.data = other.data
    with smoother.perturbed():
        assert smoother._fused == []


@pytest.mark.parametrize(
    "replace",
    [
        lambda p: p.data.clone(),
        lambda p: p.data.t(),  # of the same address
        lambda p: p.data[:1].expand(4, 4),
        lambda p: p.data.double(),
    ],
    ids=["other memory", "transposed", "expanded", "another type"],
)
def test_data_replaced_between_blocks_is_followed(replace):
    parameter = nn.Parameter(torch.arange(16.0).view(4, 4))
    smoother = SmoothOut([("w", parameter)], 0.5)
    with smoother.perturbed():
        pass
    parameter.data = replace(parameter)
    before = parameter.detach().clone()
    [weight] = all_weights([("w", parameter)])
    if replace(parameter).is_contiguous():
        [theta] = offsets([weight], NoiseKey(0, 0, 1), 0.5, "none", "uniform")
        with smoother.perturbed():
            assert torch.equal(parameter.detach(), before + theta)
    assert torch.equal(parameter.detach(), before)


def test_of_weights_in_other_memory_one_that_cannot_be_restored_does_not_keep_the_others_from_it():
    parameters = [nn.Parameter(torch.randn(4)) for _ in range(3)]
    before = [p.detach().clone() for p in parameters]
    kernel = FusedOnCPU(all_weights([(str(i), p) for i, p in enumerate(parameters)]), "none", "uniform")
    kernel.perturb(NoiseKey(0, 0), 0.5)
    parameters[0].data = torch.zeros(7)
    with pytest.raises(RuntimeError, match="size"):
        kernel.restore()
    assert torch.equal(parameters[1], before[1])
    assert torch.equal(parameters[2], before[2])


def test_copies_of_an_earlier_block_are_not_written_back():
    [weight] = weights_of([(4,)])
    kernel = FusedOnCPU([weight], "none", "uniform")
    kernel.perturb(NoiseKey(0, 0), 0.5)
    kernel.forget()
    with torch.no_grad():
        weight.parameter.fill_(3.0)
    kernel.restore()
    assert torch.equal(weight.parameter.detach(), torch.full((4,), 3.0))


def test_a_negated_view_does_not_fit():
    [weight] = all_weights([("w", nn.Parameter(torch.randn(5)))])
    assert on_cpu.fits(weight, "none")
    kernel = FusedOnCPU([weight], "none", "uniform")
    weight.parameter.data = torch._neg_view(weight.parameter.data)
    assert kernel.moved()
    assert not kernel.fits()


def test_strided_weights_that_overlap():
    room = torch.randn(144)
    assert not fused.apart([room.view(12, 12)[:, ::2], room[100:]])
    assert fused.apart([room.view(12, 12)[:, :6], room[138:]])


@pytest.mark.filterwarnings("ignore:Sparse CSR")
def test_a_sparse_weight_beside_others():
    model = nn.Linear(3, 2)
    model.sparse = nn.Parameter(torch.eye(3).to_sparse_csr(), requires_grad=False)
    with SmoothOut(model, 0.5).perturbed():
        pass


def test_a_cache_that_cannot_be_read_or_written(monkeypatch):
    from smoothout.kernels import cpu

    original, asked = cpu.cfunc, []

    def damaged(signature, **options):
        asked.append(options)
        if options:
            raise EOFError("Ran out of input")
        return original(signature)

    monkeypatch.setattr(cpu, "cfunc", damaged)
    assert cpu.compiled("none", False, False).address
    assert asked == [{"cache": True}, {}]


def test_the_cache_s_name_tells_constants_apart(monkeypatch):
    from smoothout.kernels import cpu

    monkeypatch.setattr(cpu, "cfunc", lambda *_, **__: lambda function: function.__qualname__)
    name = cpu.compiled("none", False, False)
    monkeypatch.setattr(cpu, "ROUNDS", 10)
    assert cpu.compiled("none", False, False) != name


COMPILED_APART = """
import sys, torch
from torch import nn
from smoothout import SmoothOut
from smoothout.noise.draws import NoiseKey
from smoothout.scaling import offsets
from smoothout.weights import all_weights

for kind in sys.argv[1:]:
    scale, distribution = kind.split("-")
    model = nn.Linear(300, 30)
    before = model.weight.detach().clone()
    thetas = offsets(all_weights(model), NoiseKey(0, 0), 0.5, scale, distribution)
    with SmoothOut(model, 0.5, scale=scale, distribution=distribution).perturbed():
        assert torch.equal(model.weight, before + thetas[0]), kind
"""


def test_kernels_of_the_cache_that_were_compiled_by_different_processes(tmp_path):
    kinds = ["none-uniform", "none-normal", "filter-uniform", "filter-normal"]
    for together in (kinds[::2], kinds[1::2], kinds):
        words = [sys.executable, "-c", COMPILED_APART, *together]
        subprocess.run(words, env=os.environ | {"NUMBA_CACHE_DIR": str(tmp_path)}, check=True)


@pytest.mark.parametrize("replace", [lambda p: p.data.clone(), lambda p: p.data.t(), lambda p: p.data.double()])
def test_data_replaced_inside_a_block_is_restored_where_it_is_now(replace):
    parameter = nn.Parameter(torch.arange(16.0).view(4, 4))
    before = parameter.detach().clone()
    smoother = SmoothOut([("w", parameter)], 0.5)
    block = smoother.perturbed()
    block.__enter__()
    parameter.data = replace(parameter)
    with contextlib.suppress(RuntimeError):  # it is refused where it shows
        block.__exit__(None, None, None)
    assert torch.equal(parameter.detach().float(), before)


def test_torch_keeps_its_threads():
    before = torch.get_num_threads()
    smoother = SmoothOut(nn.Linear(300, 300), 0.5)
    with smoother.perturbed():
        pass
    assert torch.get_num_threads() == before


@pytest.mark.parametrize("threads", [5], indirect=True)
def test_fewer_threads_than_were_asked_for_do_all_the_work(threads, monkeypatch):
    kernel = on_cpu.kernel("filter", "uniform", False)  # as it is called, by place: it is cached
    asked = []

    def parallel(_function, address, threads, _flags):
        asked.append(threads)
        kernel._work(address)

    monkeypatch.setattr(kernel, "_parallel", parallel)
    check(weights_of([(300, 300)]), NoiseKey(3, 4), 0.3, "filter", "uniform")
    assert set(asked) == {5}


@pytest.mark.parametrize("threads", [2], indirect=True)
def test_a_torch_without_openmp(threads, monkeypatch):
    monkeypatch.setattr(on_cpu, "_openmp", lambda: (None, {}))
    monkeypatch.setattr(on_cpu, "kernel", on_cpu.kernel.__wrapped__)
    check(weights_of([(300, 300)]), NoiseKey(3, 4), 0.3, "filter", "uniform")


@pytest.mark.parametrize("name", ["_squares_by_number", "_squares_by_pairs"])
def test_sums_of_squares_of_integers(name):
    if name == "_squares_by_pairs" and "+avx512bw" not in cpu._FEATURES:
        pytest.skip("needs AVX512BW")
    squares = getattr(cpu, name)
    summed = numba.njit(lambda address, start, d: squares(cpu._halves(address), start, d))
    drawn = np.random.default_rng(0).integers(-(2**15), 2**15, 3000).astype(np.int16)
    for halves in (drawn, np.full(3000, -(2**15), np.int16), np.full(3000, 2**15 - 1, np.int16)):
        for start, d in ((0, 1), (1, 31), (3, 32), (0, 33), (7, 784), (100, 2900)):
            expected = sum((2 * h + 1) ** 2 for h in halves[start : start + d].tolist())
            assert summed(halves.ctypes.data, start, d) == expected


@pytest.mark.parametrize("threads", [2], indirect=True)
def test_a_forked_process(threads):
    model = nn.Linear(400, 400)
    smoother = SmoothOut(model, 0.5)
    with smoother.perturbed():
        expected = bits(model.weight[0])
    smoother.load_state_dict(smoother.state_dict() | {"streams": 0})
    child = os.fork()
    if child == 0:
        with smoother.perturbed():
            os._exit(int(bits(model.weight[0]) != expected))
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


@pytest.mark.parametrize("threads", [2], indirect=True)
def test_a_process_forked_inside_a_block(threads):
    model = nn.Linear(400, 400)
    smoother, clean = SmoothOut(model, 0.5), bits(model.weight[0])
    with smoother.perturbed(stream=1):
        expected = bits(model.weight[0])
    with smoother.perturbed(stream=0) as noise:
        items = noise.each(range(2))
        next(items)
        child = os.fork()
        if child == 0:  # which would wait for threads for ever
            next(items)
            wrong = bits(model.weight[0]) != expected
            noise.__exit__(None, None, None)
            os._exit(int(wrong or bits(model.weight[0]) != clean))
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


def test_norms_are_of_the_weights_that_a_block_finds():
    model = nn.Linear(30, 20)
    smoother = SmoothOut(model, 0.5, scale="filter")
    for _ in range(3):
        with torch.no_grad():
            model.weight.mul_(2).add_(0.1)
        key = NoiseKey(0, smoother.updates, 5)
        expected = by_reference(all_weights(model), key, 0.5, "filter")
        with smoother.perturbed(stream=4) as noise:
            for _ in noise.each(range(2)):
                pass
            assert all(map(torch.equal, model.parameters(), expected))
        smoother.step()


def test_without_numba_the_reference_is_used_which_is_said_once(monkeypatch, caplog):
    def missing(*_):
        raise ImportError("No module named 'numba'")

    monkeypatch.setattr(choose._log, "disabled", False)  # as other packages' configuration leaves it
    monkeypatch.setattr(on_cpu, "kernel", missing)
    choose.numba_works.cache_clear()
    choose._say.cache_clear()
    with caplog.at_level(logging.WARNING, "smoothout"):
        smoother = SmoothOut(nn.Linear(3, 2), 0.5)
    assert smoother._fused == []
    assert "noise is drawn by plain torch, which is slower, since numba cannot be used" in caplog.text
    assert "No module named 'numba'" in caplog.text
    SmoothOut(nn.Linear(3, 2), 0.5, scale="filter")
    assert caplog.text.count("numba cannot be used") == 1
    choose.numba_works.cache_clear()


def test_a_job_longer_than_its_scratch_gets_more():
    kernel = FusedOnCPU(weights_of([(1, 100_000)]), "filter", "uniform")
    assert kernel._kernel.scratch_bytes(100_000) >= 8 * 256 + 6 * 100_000
    kernel.perturb(NoiseKey(0, 0), 0.1)
    assert kernel._scratch.nbytes >= 6 * 100_000
    assert kernel._taken.value
