import copy
import io

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional
from torch.utils._python_dispatch import TorchDispatchMode

from smoothout import SmoothOut, ghost_batches
from smoothout.ghost_norm import GhostBatchNorm1d, GhostBatchNorm2d, GhostBatchNorm3d, convert_ghost_batchnorm
from smoothout.large_batch import partition
from smoothout.train.models.resnet import CifarResNet

KINDS = {
    "1d": (GhostBatchNorm1d, nn.BatchNorm1d, ()),
    "1d with length": (GhostBatchNorm1d, nn.BatchNorm1d, (5,)),
    "2d": (GhostBatchNorm2d, nn.BatchNorm2d, (3, 4)),
    "3d": (GhostBatchNorm3d, nn.BatchNorm3d, (2, 3, 2)),
}
# (samples, size): whole, ragged, a remainder of one, smaller than size, equal to it, one ghost batch and a sample.
CUTS = [(12, 4), (14, 4), (13, 4), (3, 4), (4, 4), (5, 4)]
CLOSE = {torch.float32: {"rtol": 1e-5, "atol": 1e-5}, torch.float64: {"rtol": 1e-12, "atol": 1e-12}}


def twins(kind, size, dtype=torch.float64, **options):
    """A ghost norm and a plain BatchNorm in the same, not the first, state."""
    ghost_class, plain_class, _ = KINDS[kind]
    plain = plain_class(3, **options).to(dtype)
    with torch.no_grad():
        for tensor in (*plain.parameters(), plain.running_mean, plain.running_var):
            if tensor is not None:
                tensor.uniform_(0.5, 2)
        if plain.num_batches_tracked is not None:
            plain.num_batches_tracked.fill_(3)
    ghost = ghost_class(3, ghost_batch_size=size, **options).to(dtype)
    ghost.load_state_dict(plain.state_dict())
    return ghost, plain


def sample(kind, samples, dtype=torch.float64):
    return torch.randn(samples, 3, *KINDS[kind][2], dtype=dtype) * 2 + torch.arange(samples).view(
        -1, *[1] * (1 + len(KINDS[kind][2]))
    ).to(dtype)


def loop(plain, x, size):
    """What ghost norm is: BatchNorm called on one ghost batch after the other."""
    return torch.cat([plain(piece) for piece in ghost_batches(x, size=size)])


def compare(kind, samples, size, dtype, **options):
    ghost, plain = twins(kind, size, dtype, **options)
    x = sample(kind, samples, dtype)
    results = []
    for norm, run in ((ghost, ghost), (plain, lambda inputs: loop(plain, inputs, size))):
        inputs = x.clone().requires_grad_()
        y = run(inputs)
        direction = torch.linspace(-1, 1, y.numel(), dtype=dtype).view_as(y)
        gradients = torch.autograd.grad((y * direction).sum() + y.square().mean(), [inputs, *norm.parameters()])
        results.append([y, *gradients, *norm.buffers()])
    for got, expected in zip(*results, strict=True):
        scale = max(1.0, float(expected.detach().abs().max()))
        torch.testing.assert_close(got / scale, expected / scale, **CLOSE[dtype])


@pytest.mark.parametrize("dtype", CLOSE)
@pytest.mark.parametrize("samples, size", CUTS)
@pytest.mark.parametrize("kind", KINDS)
def test_it_is_batch_norm_called_on_each_ghost_batch(kind, samples, size, dtype):
    compare(kind, samples, size, dtype)


@pytest.mark.parametrize(
    "options",
    [{"affine": False}, {"momentum": None}, {"momentum": 1.0}, {"momentum": 0.0}, {"eps": 0.1}]
    + [{"track_running_stats": False}, {"momentum": None, "affine": False}],
    ids=str,
)
@pytest.mark.parametrize("kind", ["1d", "2d"])
def test_with_every_setting(kind, options):
    compare(kind, 14, 4, torch.float64, **options)


@settings(max_examples=40)
@given(st.integers(2, 40), st.integers(2, 12), st.sampled_from(["1d", "2d"]), st.sampled_from([0.1, None]))
def test_any_batch_and_size(samples, size, kind, momentum):
    compare(kind, samples, size, torch.float64, momentum=momentum)


def test_ghost_batches_of_one_sample():
    compare("2d", 5, 1, torch.float64)


def test_each_ghost_batch_has_mean_0_and_variance_1():
    x = sample("2d", 13)
    norm = GhostBatchNorm2d(3, ghost_batch_size=4, eps=0.0, affine=False, dtype=torch.float64)
    for piece in norm(x).split(partition(13, 4)):
        torch.testing.assert_close(piece.mean((0, 2, 3)), torch.zeros(3, dtype=torch.float64))
        torch.testing.assert_close(piece.var((0, 2, 3), correction=0), torch.ones(3, dtype=torch.float64))


def test_a_large_mean_and_many_values_do_not_cost_digits():
    x = torch.randn(64, 2, 40, 40) + 1000
    norm = GhostBatchNorm2d(2, ghost_batch_size=32, eps=0.0)
    expected = torch.cat([(p - p.mean((0, 2, 3), True)) / p.std((0, 2, 3), correction=0, keepdim=True)
                          for p in x.double().split(32)])  # fmt: skip
    torch.testing.assert_close(norm(x).double(), expected, rtol=1e-5, atol=2e-4)


def test_a_million_values_do_not_cost_digits():
    y = GhostBatchNorm2d(1, ghost_batch_size=64, eps=0.0)(torch.randn(64, 1, 128, 128) * 3 + 5).double()
    assert abs(float(y.detach().var(correction=0)) - 1) < 2e-6


def test_evaluation_is_plain():
    ghost, plain = twins("2d", 4)
    x = sample("2d", 9)
    assert torch.equal(ghost.eval()(x), plain.eval()(x))
    assert int(ghost.num_batches_tracked) == 3


def test_without_running_statistics_evaluation_goes_by_ghost_batch_as_well():
    ghost, plain = twins("2d", 4, track_running_stats=False)
    x = sample("2d", 9)
    torch.testing.assert_close(ghost.eval()(x), loop(plain.eval(), x, 4), **CLOSE[torch.float64])


@pytest.mark.parametrize("kind, samples", [("1d", 5), ("2d", 4), ("3d", 2)])
@pytest.mark.parametrize("affine", [True, False])
def test_gradients_and_their_gradients(kind, samples, affine):
    ghost, _ = twins(kind, 2, affine=affine)
    x = torch.randn(samples, 3, *[2] * len(KINDS[kind][2]), dtype=torch.float64, requires_grad=True)

    def run(inputs, *parameters):
        return torch.func.functional_call(ghost, dict(zip(["weight", "bias"], parameters, strict=False)), (inputs,))

    inputs = (x, *ghost.parameters())
    assert torch.autograd.gradcheck(run, inputs, fast_mode=True)
    assert torch.autograd.gradgradcheck(run, inputs, fast_mode=True)


@pytest.mark.parametrize("dtype", CLOSE)
def test_a_whole_network_in_one_pass_is_the_loop_over_ghost_batches(dtype):
    plain = CifarResNet(3, 10, depth=8).to(dtype)
    ghost = convert_ghost_batchnorm(copy.deepcopy(plain), 4)
    x, y = torch.randn(14, 3, 8, 8, dtype=dtype), torch.randint(0, 10, (14,))
    functional.cross_entropy(ghost(x), y).backward()
    for a, b in ghost_batches(x, y, size=4):
        (functional.cross_entropy(plain(a), b) * (len(a) / len(x))).backward()
    for (name, got), expected in zip(ghost.named_parameters(), plain.parameters(), strict=True):
        scale = float(expected.grad.abs().max())
        torch.testing.assert_close(got.grad / scale, expected.grad / scale, **CLOSE[dtype], msg=name)
    for got, expected in zip(ghost.buffers(), plain.buffers(), strict=True):
        torch.testing.assert_close(got, expected, **CLOSE[dtype])


@pytest.mark.parametrize("samples", [12, 14])
@pytest.mark.parametrize("kind, memory_format", [("2d", torch.channels_last), ("3d", torch.channels_last_3d)])
def test_the_memory_format_is_kept(kind, memory_format, samples):
    ghost, plain = twins(kind, 4)
    x = sample(kind, samples)
    inputs = x.to(memory_format=memory_format).requires_grad_()
    y = ghost(inputs)
    [gradient] = torch.autograd.grad(y.square().sum(), inputs)
    assert y.is_contiguous(memory_format=memory_format)
    assert gradient.is_contiguous(memory_format=memory_format)
    torch.testing.assert_close(y, loop(plain, x, 4), check_stride=False, **CLOSE[torch.float64])


def test_inputs_that_are_views():
    ghost, plain = twins("2d", 4)
    x = torch.randn(4, 4, 3, 12, dtype=torch.float64).transpose(1, 2).transpose(0, 3)[:, :, :, ::2]
    torch.testing.assert_close(ghost(x), loop(plain, x, 4), check_stride=False, **CLOSE[torch.float64])


@pytest.mark.parametrize("weights", ["float32", "half"])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_is_float32_rounded_once(dtype, weights):
    ghost, plain = twins("2d", 4, torch.float32)
    if weights == "half":
        ghost, plain = ghost.to(dtype), plain.to(dtype)
    exact = copy.deepcopy(plain).float()
    x = (sample("2d", 14, torch.float32) + 20).to(dtype).requires_grad_()
    y, expected = ghost(x), loop(exact, x.float(), 4)
    assert y.dtype == plain(x).dtype
    torch.testing.assert_close(y, expected.to(dtype), rtol=torch.finfo(dtype).eps, atol=1e-5)
    gradients = torch.autograd.grad(y.float().pow(3).sum(), [x, *ghost.parameters()])
    assert [g.dtype for g in gradients] == [dtype, ghost.weight.dtype, ghost.bias.dtype]
    assert ghost.running_mean.dtype == plain.running_mean.dtype
    torch.testing.assert_close(ghost.running_var.float(), exact.running_var, rtol=2 * torch.finfo(dtype).eps, atol=0)


def test_under_autocast():
    net = nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4))
    ghost = convert_ghost_batchnorm(copy.deepcopy(net), 4)
    x = torch.randn(12, 3, 4, 4)
    with torch.autocast("cpu", torch.bfloat16):
        y, expected = ghost(x), loop(net, x, 4)
    assert y.dtype == expected.dtype
    torch.testing.assert_close(y, expected, rtol=0.02, atol=0.02)
    torch.testing.assert_close(ghost[1].running_mean, net[1].running_mean, rtol=1e-4, atol=1e-5)
    y.float().square().sum().backward()
    assert ghost[1].weight.grad.dtype == torch.float32


def test_what_is_kept_by_conversion():
    bn = nn.BatchNorm1d(3, eps=0.1, momentum=None, affine=True)
    model = nn.Sequential(nn.Linear(3, 3), bn, nn.Sequential(bn, nn.BatchNorm1d(3, affine=False).eval()))
    parameters, buffers = list(model.parameters()), list(model.buffers())
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    assert convert_ghost_batchnorm(model, 4) is model
    assert model[1] is model[2][0]
    assert isinstance(model[1], GhostBatchNorm1d)
    assert (model[1].eps, model[1].momentum, model[1].training, model[2][1].training) == (0.1, None, True, False)
    assert (model[1].affine, model[2][1].affine) == (True, False)
    for before, after in ((parameters, model.parameters()), (buffers, model.buffers())):
        assert all(a is b for a, b in zip(before, after, strict=True))
    model(torch.randn(8, 3)).square().sum().backward()
    old = model[1].bias.detach().clone()
    optimizer.step()
    assert not torch.equal(model[1].bias, old)
    assert convert_ghost_batchnorm(model, 2)[1].ghost_batch_size == 2
    assert repr(model[1]).endswith("ghost_batch_size=2)")


@pytest.mark.parametrize("kind", KINDS)
def test_a_model_that_is_a_batch_norm(kind):
    ghost_class, plain_class, _ = KINDS[kind]
    norm = plain_class(3)
    assert convert_ghost_batchnorm(norm, 4) is norm
    assert type(norm) is ghost_class


@pytest.mark.parametrize("other", [nn.SyncBatchNorm(3), nn.LazyBatchNorm2d()], ids=["SyncBatchNorm", "LazyBatchNorm2d"])
def test_kinds_that_are_refused(other):
    model = nn.Sequential(nn.BatchNorm2d(3), other)
    with pytest.raises(TypeError, match=f"module '1' is a {type(other).__name__}; expected BatchNorm1d, .*Run a batch"):
        convert_ghost_batchnorm(model, 4)
    assert type(model[0]) is nn.BatchNorm2d


@pytest.mark.parametrize("make", [lambda size: GhostBatchNorm1d(3, ghost_batch_size=size),
                                  lambda size: convert_ghost_batchnorm(nn.BatchNorm1d(3), size)])  # fmt: skip
def test_impossible_sizes(make):
    with pytest.raises(ValueError, match="ghost_batch_size is 0; expected a whole number >= 1"):
        make(0)
    with pytest.raises(TypeError, match=r"ghost_batch_size is 1\.5; expected a whole number"):
        make(1.5)


@pytest.mark.parametrize("samples, size", [(1, 4), (3, 1), (0, 4)])
def test_ghost_batches_without_variance(samples, size):
    norm = GhostBatchNorm1d(3, ghost_batch_size=size)
    with pytest.raises(
        ValueError,
        match=rf"shape \({samples}, 3\) in ghost batches of {size} leaves.*expected at least 2.*larger batch",
    ):
        norm(torch.zeros(samples, 3))
    assert int(norm.num_batches_tracked) == 0


def test_inputs_of_a_wrong_shape():
    with pytest.raises(ValueError, match=r"an input of shape \(8, 1\) has 1 channels; expected 3, the num_features"):
        GhostBatchNorm1d(3, ghost_batch_size=4, affine=False)(torch.randn(8, 1))
    with pytest.raises(ValueError, match="expected 4D input"):
        GhostBatchNorm2d(3, ghost_batch_size=4)(torch.zeros(4, 3))


def test_copies_files_and_state_dicts():
    ghost, plain = twins("2d", 4)
    x = sample("2d", 8)
    assert list(ghost.state_dict()) == list(plain.state_dict())
    plain.load_state_dict(ghost.state_dict())
    ghost.load_state_dict(plain.state_dict())
    file = io.BytesIO()
    torch.save(ghost, file)
    file.seek(0)
    for other in (copy.deepcopy(ghost), torch.load(file, weights_only=False)):
        assert torch.equal(other(x), copy.deepcopy(ghost)(x))


def test_export_in_evaluation():
    model = convert_ghost_batchnorm(nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)), 2).eval()
    x = torch.randn(4, 3, 6, 6)
    torch.testing.assert_close(torch.export.export(model, (x,)).module()(x), model(x))


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")
def test_trace_in_evaluation():
    model = convert_ghost_batchnorm(nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)), 2).eval()
    x = torch.randn(4, 3, 6, 6)
    torch.testing.assert_close(torch.jit.trace(model, (x,))(x), model(x))


# A batch size that changes makes dynamo's sizes symbolic; then it may break the graph, but not the values.
@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf:UserWarning")  # dynamo's own
@pytest.mark.parametrize("options", [{"dynamic": False, "fullgraph": True}, {}], ids=str)
def test_compiled_training(options):
    torch._dynamo.reset()
    model = convert_ghost_batchnorm(nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)), 4)
    twin = copy.deepcopy(model)
    compiled = torch.compile(twin, backend="aot_eager", **options)
    for samples in (8, 10):
        x = torch.randn(samples, 3, 6, 6)
        for run in (model, compiled):
            run.zero_grad()
            run(x).pow(3).sum().backward()
    for got, expected in zip(twin.parameters(), model.parameters(), strict=True):
        torch.testing.assert_close(got.grad, expected.grad, rtol=1e-4, atol=1e-3)
    for got, expected in zip(twin.buffers(), model.buffers(), strict=True):
        torch.testing.assert_close(got, expected)


class Count(TorchDispatchMode):
    """Counts operators: what a GPU launches."""

    def __init__(self):
        super().__init__()
        self.calls = 0

    def __torch_dispatch__(self, operator, types, arguments=(), options=None):
        self.calls += 1
        return operator(*arguments, **(options or {}))


def test_the_work_does_not_grow_with_the_number_of_ghost_batches():
    def operators(samples):
        norm, x = GhostBatchNorm2d(3, ghost_batch_size=4), torch.randn(samples, 3, 2, 2, requires_grad=True)
        with Count() as count:
            norm(x).sum().backward()
        return count.calls

    assert operators(8) == operators(64)
    assert operators(10) == operators(66)


def test_smoothing_leaves_ghost_norms_out():
    model = convert_ghost_batchnorm(nn.Sequential(nn.Linear(3, 3), nn.BatchNorm1d(3)), 4)
    before = [parameter.detach().clone() for parameter in model.parameters()]
    with SmoothOut(model, 0.1).perturbed():
        moved = [not torch.equal(a, b) for a, b in zip(model.parameters(), before, strict=True)]
    assert moved == [True, True, False, False]
