"""The GPU kernels return the reference's bits: on a GPU where there is one, else in Triton's interpreter.

    python -m pytest tests/kernels/gpu_checks.py                          (with a GPU)
    TRITON_INTERPRET=1 python -m pytest tests/kernels/gpu_checks.py       (without)

``test_gpu.py`` runs it in a process of its own, since Triton reads that variable when it is imported.
"""

import pytest
import torch
from torch import nn

from smoothout import SmoothOut
from smoothout.kernels import on_gpu
from smoothout.kernels.on_gpu import FusedOnGPU
from smoothout.noise.draws import NoiseKey, uniform_integers
from smoothout.scaling import offsets
from smoothout.weights import all_weights

ON_GPU = torch.cuda.is_available()
DEVICE = torch.device("cuda" if ON_GPU else "cpu")
SCALES = ("none", "weight", "filter")
DISTRIBUTIONS = ("uniform", "normal")
OTHER = NoiseKey(8, 9)
#: One element, tails of blocks of 8, filters of every class of length and one beside it, more than a piece.
ROW_MAJOR = [(), (1,), (7,), (9,), (4097,), (40, 1), (3, 5), (5, 3, 3, 3), (33, 32), (3, 33), (2, 255), (5, 256)]
ROW_MAJOR += [(2, 257), (3, 700), (0,), (0, 3)]
CHANNELS_LAST = [(5, 3, 3, 3), (3, 40, 3, 3), (3, 130, 1, 2), (0, 3, 2, 2)]


def weights_of(shapes, dtype=torch.float32, channels_last=False):
    generator = torch.Generator().manual_seed(0)
    made = [torch.randn(shape, generator=generator).to(DEVICE, dtype) for shape in shapes]
    if channels_last:
        made = [tensor.to(memory_format=torch.channels_last) for tensor in made]
    return all_weights([(str(i), nn.Parameter(tensor)) for i, tensor in enumerate(made)])


def check(weights, key, amplitude, scale, distribution):
    """Noise by both, to the bit, also in the place of other noise; the weights come back twice, and not for a third."""
    parameters = [weight.parameter.detach() for weight in weights]
    before = [p.clone() for p in parameters]
    thetas = offsets(weights, key, amplitude, scale, distribution)
    expected = [(p + theta).to(p.dtype) for p, theta in zip(parameters, thetas, strict=True)]
    kernel = FusedOnGPU(weights, scale, distribution)
    for _ in range(2):
        for drawn in (key, OTHER, key):
            kernel.perturb(drawn, amplitude)
            for p, noisy in zip(parameters, expected if drawn is key else [], strict=drawn is key):
                assert torch.equal(p, noisy), (tuple(p.shape), (p != noisy).sum(), (p - noisy).abs().max())
        kernel.restore()
        assert all(map(torch.equal, parameters, before))
    parameters[1].add_(1)
    kernel.restore()
    assert not torch.equal(parameters[1], before[1])


@pytest.mark.parametrize("distribution", DISTRIBUTIONS)
@pytest.mark.parametrize("scale", SCALES)
def test_row_major(scale, distribution):
    check(weights_of(ROW_MAJOR), NoiseKey(3, 2**33 + 1, 5, 1), 0.3, scale, distribution)


@pytest.mark.parametrize("distribution", DISTRIBUTIONS)
@pytest.mark.parametrize("scale", SCALES)
def test_channels_last(scale, distribution):
    check(weights_of(CHANNELS_LAST, channels_last=True), NoiseKey(2**63, 7), 1e-3, scale, distribution)


BFLOAT16 = pytest.param(torch.bfloat16, marks=pytest.mark.skipif(not ON_GPU, reason="Triton's interpreter truncates"))


@pytest.mark.parametrize("dtype", [BFLOAT16, torch.float16])
@pytest.mark.parametrize("scale", SCALES)
def test_half_precision(scale, dtype):
    check(weights_of([(9,), (5, 20), (3, 300)], dtype), NoiseKey(3, 4), 0.3, scale, "uniform")


@pytest.mark.parametrize("amplitude", [-0.5, 1e-30, 1e30, 1 / 3])
def test_any_amplitude(amplitude):
    check(weights_of([(9,), (5, 20), (3, 300)]), NoiseKey(0, 0), amplitude, "filter", "uniform")


@pytest.mark.parametrize("first", [2**32 - 16, 2**32, 2**35 + 8])
def test_elements_past_32_bits(first):
    size = 100
    [weight] = weights_of([(size,)])
    before = weight.parameter.detach().clone()
    [k] = uniform_integers(NoiseKey(1, 2), [0], [size], DEVICE, first=first)
    kernel = FusedOnGPU([weight], "none", "uniform")
    row = kernel._table[0]
    row[:2] -= 4 * first  # as if so many elements came before
    row[3:5] += first
    kernel.perturb(NoiseKey(1, 2), 0.5)
    assert torch.equal(weight.parameter.detach(), before + k / 65536 * 0.5)
    kernel.restore()
    assert torch.equal(weight.parameter.detach(), before)


def test_nothing_is_written_back_that_was_not_taken():
    weights = weights_of([(50,), (60,)])
    kernel = FusedOnGPU(weights, "none", "uniform")
    kernel.restore()
    kernel.perturb(NoiseKey(0, 0), 0.5)
    kernel.forget()
    with torch.no_grad():
        weights[0].parameter.fill_(3.0)
    kernel.restore()
    assert torch.equal(weights[0].parameter, torch.full_like(weights[0].parameter, 3.0))


def test_weights_in_other_memory_are_restored_where_they_are():
    weights = weights_of([(50,), (60,)])
    before = [weight.parameter.detach().clone() for weight in weights]
    kernel = FusedOnGPU(weights, "none", "uniform")
    kernel.perturb(NoiseKey(0, 0), 0.5)
    weights[1].parameter.data = weights[1].parameter.data.clone()
    assert kernel.moved()
    kernel.restore()
    assert all(torch.equal(weight.parameter, clean) for weight, clean in zip(weights, before, strict=True))
    kernel.relocate()
    kernel.perturb(NoiseKey(0, 0), 0.5)
    assert not torch.equal(weights[1].parameter, before[1])
    kernel.restore()
    assert all(torch.equal(weight.parameter, clean) for weight, clean in zip(weights, before, strict=True))


def test_autograd_knows():
    weights = weights_of([(50,)])
    kernel = FusedOnGPU(weights, "none", "uniform")
    versions = [weights[0].parameter._version]
    for write in (lambda: kernel.perturb(NoiseKey(0, 0), 0.5), kernel.restore):
        write()
        versions.append(weights[0].parameter._version)
    assert versions == sorted(set(versions))


@pytest.mark.parametrize("permuted", [False, True])
@pytest.mark.parametrize("distribution", DISTRIBUTIONS)
@pytest.mark.parametrize("scale", SCALES)
def test_the_check_at_first_use_passes(scale, distribution, permuted):
    assert not on_gpu._differs((DEVICE, torch.float32, permuted), scale, distribution)


def test_the_check_at_first_use_finds_other_bits(monkeypatch, caplog):
    kind = (DEVICE, torch.float32, False)
    monkeypatch.setattr(on_gpu, "offsets", lambda weights, *_: [torch.zeros_like(w.parameter) for w in weights])
    assert not on_gpu.works.__wrapped__(kind, "none", "uniform")
    assert "other bits on this device" in caplog.text


@pytest.mark.skipif(not ON_GPU, reason="needs a GPU")
class TestOnGPU:
    """Whole blocks."""

    @pytest.mark.parametrize("scale", SCALES)
    def test_same_noise_as_on_a_cpu(self, scale):
        model = nn.Sequential(nn.Linear(300, 50), nn.Linear(50, 10))
        other = nn.Sequential(nn.Linear(300, 50), nn.Linear(50, 10))
        other.load_state_dict(model.state_dict())
        other.to(DEVICE)
        smoothers = [SmoothOut(each, 0.1, scale=scale, seed=9) for each in (model, other)]
        assert len(smoothers[1]._fused) == 1
        with smoothers[0].perturbed(), smoothers[1].perturbed():
            for p, q in zip(model.parameters(), other.parameters(), strict=True):
                assert torch.equal(p, q.cpu())
        assert all(torch.equal(p, q.cpu()) for p, q in zip(model.parameters(), other.parameters(), strict=True))

    def test_a_block_does_not_wait_for_the_device(self):
        model = nn.Sequential(nn.Linear(300, 50), nn.Linear(50, 10)).to(DEVICE)
        smoother = SmoothOut(model, 0.1, scale="filter")
        with smoother.perturbed():
            pass
        smoother.step()
        torch.cuda.set_sync_debug_mode("error")
        try:
            with smoother.perturbed() as noise:
                for _ in noise.each(range(3)):
                    pass
            smoother.step()
        finally:
            torch.cuda.set_sync_debug_mode("default")

    @pytest.mark.parametrize("scale", SCALES)
    def test_each_item_sees_what_a_block_of_its_own_shows(self, scale):
        model = nn.Sequential(nn.Linear(300, 50), nn.Linear(50, 10).half()).to(DEVICE)
        before, seen = [p.detach().clone() for p in model.parameters()], []
        smoother = SmoothOut(model, 0.1, scale=scale, clean_share=0.25)
        for stream in range(6):
            with smoother.perturbed(stream):
                seen.append([p.detach().clone() for p in model.parameters()])
        with smoother.perturbed() as noise:
            for stream in noise.each(range(6)):
                assert all(map(torch.equal, model.parameters(), seen[stream]))
        assert all(map(torch.equal, model.parameters(), before))

    def test_noise_reaches_a_captured_graph(self):
        model = nn.Linear(20, 5).to(DEVICE)
        x = torch.randn(8, 20, device=DEVICE)
        with torch.no_grad():
            model(x)
            torch.cuda.synchronize()
            graph = torch.cuda.CUDAGraph()
            with torch.cuda.graph(graph):
                y = model(x)
            clean = model(x).clone()
            with SmoothOut(model, 0.5).perturbed():
                graph.replay()
                assert torch.equal(y, model(x))
                assert not torch.equal(y, clean)
            graph.replay()
            assert torch.equal(y, clean)
