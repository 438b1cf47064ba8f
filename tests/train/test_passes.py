"""A noise per batch in one pass, compiled passes, channels_last: each against the plain loop."""

import math
import re
import shutil

import pytest
import torch
from small_runs import Watcher, equal, run, settings, weights
from torch import nn
from torch.nn import functional

from smoothout import SmoothOut
from smoothout.ghost_norm import convert_ghost_batchnorm, ghost_norms
from smoothout.large_batch import partition
from smoothout.noise.philox import fold
from smoothout.train import data, loop, models, passes
from smoothout.train.config import Batches, Settings
from smoothout.train.description import describe
from smoothout.train.evaluation import Conditions, evaluate
from smoothout.train.run import NOISE, prepare

NETS = """
import torch
from torch import nn

def plain(num_classes, input_shape):
    return nn.Sequential(nn.Flatten(), nn.Linear(6, 16), nn.Tanh(), nn.Linear(16, num_classes))

def norms(num_classes, input_shape):
    return nn.Sequential(nn.Linear(6, 16), nn.BatchNorm1d(16), nn.Tanh(), nn.Linear(16, num_classes))

def no_running_stats(num_classes, input_shape):
    norm = nn.BatchNorm1d(16, track_running_stats=False)
    return nn.Sequential(nn.Linear(6, 16), norm, nn.Tanh(), nn.Linear(16, num_classes))

def synchronised(num_classes, input_shape):
    return nn.Sequential(nn.Linear(6, num_classes), nn.Sequential(nn.SyncBatchNorm(num_classes)))

class Folded(nn.Module):
    def __init__(self, num_classes):
        super().__init__()
        self.norm, self.head = nn.BatchNorm1d(2), nn.Linear(6, num_classes)
    def forward(self, x):
        return self.head(self.norm(x.view(-1, 2)).view(-1, 6))

def folded(num_classes, input_shape):
    return Folded(num_classes)

class Images(nn.Module):
    seen = []
    def __init__(self, num_classes):
        super().__init__()
        self.first, self.norm = nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8)
        self.second, self.head = nn.Conv2d(8, 8, 3), nn.Linear(8 * 7 * 7, num_classes)
    def forward(self, x):
        Images.seen.append(x.is_contiguous(memory_format=torch.channels_last) and not x.is_contiguous())
        return self.head(torch.tanh(self.second(torch.tanh(self.norm(self.first(x))))).flatten(1))

def images(num_classes, input_shape):
    return Images(num_classes)

def pictures():
    generator = torch.Generator().manual_seed(0)
    def split(count):
        targets = torch.arange(count) % 4
        images = torch.randn(count, 3, 9, 9, generator=generator) + targets[:, None, None, None]
        return images, targets
    return {"train": split(64), "holdout": split(20), "test": split(20)}

def even():
    generator = torch.Generator().manual_seed(0)
    def split(count):
        inputs = torch.randn(count, 6, generator=generator)
        return inputs, inputs[:, :4].argmax(1)
    return {"train": split(64), "holdout": split(20), "test": split(20)}
"""
PLAIN = {"strength": 0.0, "epochs": 2, "milestones": (9,)}


@pytest.fixture
def nets(tmp_path):
    """Settings for one of the nets above."""
    file = tmp_path / "nets.py"
    file.write_text(NETS)

    def make(name, dataset=None, **changes):
        own = {} if dataset is None else {"dataset": f"{file}:{dataset}"}
        return settings(model=f"{file}:{name}", **own, **changes)

    return make


def close(one, other, **tolerance):
    assert one.keys() == other.keys()
    for name in one:
        torch.testing.assert_close(one[name], other[name], **(tolerance or {"rtol": 1e-4, "atol": 1e-5}))


# -- a noise per batch -------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["plain", "norms", "no_running_stats"])
@pytest.mark.parametrize("options", [{}, {"accumulation": 2}, {"precision": "bf16", "epochs": 1}], ids=str)
def test_without_noise_it_is_the_ghost_batches_up_to_rounding(name, options, nets, tmp_path):
    found = [
        run(tmp_path / each, nets(name, **(PLAIN | options), noise_per=each))[0] for each in ("ghost_batch", "batch")
    ]
    tolerance = {"rtol": 0.05, "atol": 0.01} if "precision" in options else {}
    close(weights(found[0]), weights(found[1]), **tolerance)  # running statistics and num_batches_tracked among them
    assert not equal(weights(found[0]), weights(found[0], "initial"))


METHODS = {
    "sam": {},
    "asam": {},
    "momentum_sam": {},
    "ema": {"average_decay": 0.8},
    "swa": {"average_start": 0.5},
}


@pytest.mark.parametrize("method", METHODS)
def test_rivals_without_noise_are_the_ghost_batches_up_to_rounding(method, nets, tmp_path):
    chosen = nets("norms", **PLAIN, method=method, **METHODS[method])
    ghosts, _ = run(tmp_path / "ghosts", chosen)
    batch, _ = run(tmp_path / "batch", chosen.replace(noise_per="batch"))
    close(weights(ghosts), weights(batch))


def pieces(prepared, inputs, targets):
    """What gets a noise, numbered."""
    sizes = passes.sizes(prepared.settings.batches, [len(targets)])
    return list(enumerate(zip(torch.split(inputs, sizes), torch.split(targets, sizes), strict=True)))


def test_the_gradient_is_that_of_the_ghost_batches(nets):
    made = []
    for noise_per in ("ghost_batch", "batch"):
        prepared = prepare(nets("norms", strength=0.0, noise_per=noise_per))
        inputs, targets = next(prepared.dataset.train.take(torch.arange(64)).batches([64]))
        prepared.model.train()
        with passes.normalised(prepared.network, prepared.settings.batches):
            for index, (x, y) in pieces(prepared, inputs, targets):
                loop._learn(prepared, None, 0, index, x, y, len(y) / 64)
        made.append(prepared.network)
    close({n: p.grad for n, p in made[0].named_parameters()}, {n: p.grad for n, p in made[1].named_parameters()})
    close(dict(made[0].named_buffers()), dict(made[1].named_buffers()))
    assert int(made[1][1].num_batches_tracked) == 3  # 24, 24, 16


def test_the_noise_is_that_of_the_batch_among_those_accumulated(tmp_path):
    chosen = settings(epochs=1, accumulation=2, copies=2, lr_rule="none", milestones=(9,), noise_per="batch")
    folder, _ = run(tmp_path / "run", chosen)

    dataset = data.load(chosen.data, 3)
    model = models.build(chosen.network.model, dataset.input_shape, dataset.classes, 3)
    convert_ghost_batchnorm(model, 24)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9, weight_decay=1e-4)
    smoother = SmoothOut(model, 0.05, seed=fold(3, NOISE))
    order = torch.randperm(203, generator=torch.Generator().manual_seed(fold(3, loop._ORDER, 0) >> 1))
    batches = torch.split(order, partition(203, 64))
    for step, pair in enumerate((batches[:2], batches[2:])):
        for stream, indices in enumerate(pair):
            for copy in range(2):
                torch.default_generator.manual_seed(fold(3, loop._STEP, step, stream) >> 1)
                with smoother.perturbed(stream=stream, draw=copy):
                    loss = functional.cross_entropy(
                        model(dataset.train.inputs[indices]), dataset.train.targets[indices]
                    )
                    (loss * (len(indices) / sum(map(len, pair)) / 2)).backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 5.0)
        optimizer.step()
        optimizer.zero_grad()
        smoother.step()
    assert equal(weights(folder), model.state_dict())


def test_the_noise_has_k_times_the_variance(nets):
    """To first order the gradient is linear in the noise, so K draws leave 1/K of the variance that one leaves."""
    inputs, targets = torch.randn(4, 6).repeat(4, 1), torch.arange(4).repeat(4)  # four equal ghost batches
    variances = {}
    for noise_per in ("ghost_batch", "batch"):
        prepared = prepare(nets("plain", strength=1e-3, ghost_batch_size=4, noise_per=noise_per))
        gradients = []
        for update in range(300):
            prepared.network.zero_grad()
            own = pieces(prepared, inputs, targets)
            part = loop.Part(16, [len(y) for _, (_, y) in own], own)
            loop._gradient(prepared, None, update, part, None)
            gradients.append(torch.cat([p.grad.flatten().double() for p in prepared.network.parameters()]))
            prepared.smoother.step()
        variances[noise_per] = float(torch.stack(gradients).var(0).sum())
    assert variances["batch"] / variances["ghost_batch"] == pytest.approx(4, rel=0.2)


@pytest.mark.parametrize("name", ["norms", "no_running_stats"])
def test_what_is_kept_and_evaluated_is_the_plain_network(name, nets, tmp_path):
    chosen = nets(name, noise_per="batch", epochs=1)
    prepared = prepare(chosen)
    keys = list(prepared.network.state_dict())
    folder = loop.RunFolder.create(tmp_path / "run", chosen)
    result = loop.train(prepared, folder, Silent())
    assert type(prepared.network[1]) is nn.BatchNorm1d
    assert "ghost_batch_size" not in vars(prepared.network[1])
    assert weights(folder).keys() == set(keys)
    plain = models.build(chosen.network.model, (6,), 4, 0)
    plain.load_state_dict(weights(folder))
    given = {"model": chosen.network.model, "dataset": chosen.data.dataset}
    (again,) = evaluate(folder.checkpoint("last"), ["holdout"], Conditions(), **given)
    assert again.risk.loss == result.holdout_loss_last


class Silent:
    def __getattr__(self, name):
        return lambda *arguments: None


def test_ghost_norms_end_with_the_block_also_after_an_exception():
    model = nn.Sequential(nn.BatchNorm1d(2), convert_ghost_batchnorm(nn.BatchNorm1d(2), 3))
    with ghost_norms(model, 5):
        assert [norm.ghost_batch_size for norm in model] == [5, 5]

    def interrupted():
        with ghost_norms(model, 5):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert type(model[0]) is nn.BatchNorm1d
    assert model[1].ghost_batch_size == 3


def test_what_gets_a_noise():
    ghosts, batch = Batches(noise_per="ghost_batch", ghost_batch_size=24), Batches(noise_per="batch")
    assert passes.sizes(ghosts, [64, 30]) == [24, 24, 16, 24, 6]
    assert passes.sizes(batch, [64, 30]) == [64, 30]


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        (
            {"strength": "auto"},
            "strength is 'auto', noise_per is 'batch' and an update has one batch of 64 samples, which stays clean; "
            "expected two or more. Give --accumulation 2 or more, or leave --noise-per out.",
        ),
        ({"clean_share": 0.5}, "clean_share is 0.5, noise_per is 'batch' and an update has one batch of 64 samples"),
        ({"method": "mrwp"}, "clean_share is 0.5, noise_per is 'batch' and an update has one batch"),
    ],
)
def test_a_clean_share_needs_two_batches(changes, text, nets):
    with pytest.raises(ValueError, match=re.escape(text)):
        prepare(nets("norms", noise_per="batch", **changes))
    prepare(nets("norms", noise_per="batch", accumulation=2, **changes))


def test_norms_that_cannot_tell_ghost_batches_are_refused(nets):
    text = (
        r"noise_per is 'batch', and the BatchNorm 'norm' is given 6 rows for 2 samples; expected a row a sample, .*"
        r"Keep samples along dimension 0, or leave --noise-per out: then each ghost batch has a pass of its own\."
    )
    with pytest.raises(ValueError, match=text):
        prepare(nets("folded", noise_per="batch"))
    prepare(nets("folded"))


def test_other_kinds_of_norms_are_refused(nets, monkeypatch):
    chosen = nets("synchronised", noise_per="batch")
    network = models.build(chosen.network.model, (6,), 4, 0)
    text = "noise_per is 'batch', and module '1.0' is a SyncBatchNorm; expected .*, or leave --noise-per out"
    with pytest.raises(ValueError, match=text):
        passes.check(chosen.batches, network, data.load(chosen.data, 0))
    passes.check(Batches(), network, data.load(chosen.data, 0))


def test_the_description_says_how(nets):
    lines = describe(prepare(nets("norms", noise_per="batch", strength=0.0)))
    assert (
        "updates: 4 an epoch, 16 in all, of 1 x 64 samples, each batch with one noise in one pass, BatchNorm by ghost "
        "batches of 24" in lines
    )
    lines = describe(prepare(nets("images", "pictures", channels_last=True, strength=0.0)))
    assert lines[1].endswith("; channels_last")


# -- compiled ----------------------------------------------------------------------------------------------


def losses(folder):
    return [(row.train_loss, row.holdout_loss) for row in folder.metrics()]


@pytest.mark.skipif(shutil.which("g++") is None and shutil.which("clang++") is None, reason="no C++ compiler")
def test_a_compiled_run_has_the_losses_of_one_that_is_not(nets, tmp_path, monkeypatch):
    monkeypatch.setattr(torch._inductor.config, "compile_threads", 1)  # no pool of processes
    chosen = nets("norms", "even", batch_size=32, ghost_batch_size=16, precision="fp32")
    plain, _ = run(tmp_path / "plain", chosen)
    clean, _ = run(tmp_path / "clean", chosen.replace(strength=0.0))
    compiled, result = run(tmp_path / "compiled", chosen.replace(compile="reduce-overhead"))
    for found, expected in zip(losses(compiled), losses(plain), strict=True):
        assert found == pytest.approx(expected, rel=1e-4)
    close(weights(compiled), weights(plain))
    difference = max(abs(a[0] - b[0]) for a, b in zip(losses(clean), losses(compiled), strict=True))
    assert difference > 1e-3  # the noise was seen
    given = {"model": chosen.network.model, "dataset": chosen.data.dataset}
    (again,) = evaluate(compiled.checkpoint("last"), ["holdout"], Conditions(), **given)
    assert again.risk.loss == result.holdout_loss_last


@pytest.mark.skipif(not torch.cuda.is_available(), reason="CUDA graphs need a GPU")
@pytest.mark.parametrize("changes", [{}, {"noise_per": "batch", "accumulation": 2}, {"precision": "bf16"}], ids=str)
def test_gradients_of_cuda_graphs_add_up(changes, nets, tmp_path):
    chosen = nets("images", "pictures", batch_size=32, ghost_batch_size=16, device="cuda", **changes)
    plain, _ = run(tmp_path / "plain", chosen)
    graphs, _ = run(tmp_path / "graphs", chosen.replace(compile="reduce-overhead", channels_last=True))
    for found, expected in zip(losses(graphs), losses(plain), strict=True):
        assert found == pytest.approx(expected, rel=0.05 if "precision" in changes else 0.01)


@pytest.fixture
def graphs(monkeypatch):
    """torch.compile without code generation; lists the graphs that it makes."""
    made, compiler = [], torch.compile

    def backend(graph, inputs):
        made.append(graph)
        return graph.forward

    def compile_(function, mode, **options):
        return compiler(function, backend=backend, **options)

    monkeypatch.setattr(torch, "compile", compile_)
    return made


@pytest.mark.parametrize(
    ("changes", "count"),
    [
        ({}, 3),  # ghost batches of 24, 16 and 11
        ({"noise_per": "batch"}, 2),  # batches of 64 and 11
        ({"strength": 0.0, "method": "sam"}, 6),  # the second pass leaves running statistics alone
        ({"method": "ema", "precision": "bf16", "noise_per": "batch"}, 2),
        ({"strength": "auto"}, 3),
    ],
    ids=str,
)
def test_each_size_is_one_graph(changes, count, tmp_path, graphs):
    chosen = settings(epochs=2, **changes)
    plain, _ = run(tmp_path / "plain", chosen)
    compiled, _ = run(tmp_path / "compiled", chosen.replace(compile="default"))
    assert len(graphs) == 1 + count  # the first one is the trial
    close(weights(compiled), weights(plain))


def test_a_compiled_run_resumes_exactly(tmp_path, graphs):
    chosen = settings(compile="default", noise_per="batch", method="ema")
    whole, _ = run(tmp_path / "whole", chosen)
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "parts", chosen, Watcher(stop_after=10))
    parts, _ = run(tmp_path / "parts", chosen, resume=True)
    assert equal(weights(whole), weights(parts))
    assert len(graphs) == 3 * 3


def test_every_run_of_a_process_is_compiled(tmp_path, graphs):
    for seed in range(9):  # torch stops compiling a function after eight times
        run(tmp_path / str(seed), settings(epochs=1, seed=seed, ghost_batch_size=128, compile="default"))
    assert len(graphs) == 9 * 3


def test_where_nothing_can_be_compiled(monkeypatch):
    def fail(function, **options):
        raise OSError("no compiler")

    monkeypatch.setattr(torch, "compile", fail)
    text = (
        r"compile is 'default' and torch.compile fails on cpu: OSError: no compiler\. On a CPU it needs a C\+\+ .*out"
    )
    with pytest.raises(RuntimeError, match=text):
        prepare(settings(compile="default", device="cpu"))


def test_a_gradient_leaves_the_memory_of_a_graph():
    model = nn.Linear(2, 1)
    learner = passes.Learner(model, None, torch.device("cpu"))
    learner._graphs = True
    model.bias.grad = torch.ones(1)
    own, other = model.bias.grad, torch.tensor([[2.0, 3.0]])
    with learner.gradients_kept():
        model.weight.grad = other  # as a backward pass would leave it
    assert torch.equal(model.weight.grad, other)
    assert model.weight.grad.data_ptr() != other.data_ptr()
    assert model.bias.grad is own


# -- channels_last -----------------------------------------------------------------------------------------


def test_channels_last_reaches_network_and_inputs(nets, tmp_path):
    chosen = nets("images", "pictures", epochs=2, batch_size=32, ghost_batch_size=16)
    plain, _ = run(tmp_path / "plain", chosen)
    prepared = prepare(chosen.replace(channels_last=True))
    seen = type(prepared.network).seen
    seen.clear()
    folder = loop.RunFolder.create(tmp_path / "run", prepared.settings)
    loop.train(prepared, folder, Silent())
    assert seen
    assert all(seen)
    assert prepared.network.second.weight.is_contiguous(memory_format=torch.channels_last)
    close(weights(folder), weights(plain))
    given = {"model": chosen.network.model, "dataset": chosen.data.dataset}
    (again,) = evaluate(folder.checkpoint("last"), ["holdout"], Conditions(), **given)
    assert again.risk.loss == pytest.approx(folder.metrics()[-1].holdout_loss)


@pytest.mark.parametrize("scale", ["none", "filter"])
def test_the_noise_is_the_same_in_channels_last(scale, nets):
    noisy = []
    for chosen in (
        nets("images", "pictures", scale=scale),
        nets("images", "pictures", scale=scale, channels_last=True),
    ):
        prepared = prepare(chosen)
        with prepared.smoother.perturbed(stream=2):
            noisy.append({name: value.detach().clone() for name, value in prepared.network.named_parameters()})
    if scale == "none":
        assert equal(*noisy)
    close(*noisy, rtol=1e-6, atol=1e-7)  # norms of filters are summed in another order


def test_channels_last_is_for_images():
    text = (
        r"channels_last is on and the samples of .*:blobs have the shape \(6,\); expected images, \(channels, height, "
        r"width\)\. Leave --channels-last out, or use data of images\."
    )
    with pytest.raises(ValueError, match=text):
        prepare(settings(channels_last=True))


# Recording what it sees breaks the network's graph.
@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf:UserWarning")  # dynamo's own
def test_all_together(nets, tmp_path, graphs):
    chosen = nets("images", "pictures", epochs=2, batch_size=32, ghost_batch_size=16, precision="bf16")
    plain, _ = run(tmp_path / "plain", chosen.replace(noise_per="batch"))
    chosen = chosen.replace(noise_per="batch", compile="max-autotune", channels_last=True)
    folder, _ = run(tmp_path / "run", chosen)
    for found, expected in zip(losses(folder), losses(plain), strict=True):
        assert found == pytest.approx(expected, rel=0.02)
    assert math.isfinite(folder.metrics()[-1].train_loss)


# -- settings that came later --------------------------------------------------------------------------------


def test_records_without_these_settings_stay_what_they_were():
    text = Settings().to_json()
    assert not any(name in text for name in ("noise_per", "compile", "channels_last"))
    assert Settings.from_json(text) == Settings()
    used = Settings().replace(noise_per="batch", compile="reduce-overhead", channels_last=True)
    assert Settings.from_json(used.to_json()) == used
