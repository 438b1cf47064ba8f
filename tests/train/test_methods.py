"""Each method against a loop written by hand, and what it cannot go with."""

import contextlib

import pytest
import torch
from pytorch_optimizer import SAM
from small_runs import equal, run, settings, weights
from torch.nn import functional

from smoothout.large_batch import partition
from smoothout.noise.philox import fold
from smoothout.running_stats import frozen_running_stats, recompute_running_stats
from smoothout.train import data, methods, models
from smoothout.train.loop import _ORDER, _STEP
from smoothout.train.regime import Phase

SGD = {"lr": 0.05, "momentum": 0.9, "weight_decay": 1e-4}
PLAIN = {"strength": 0.0, "epochs": 2, "lr_rule": "none", "milestones": (9,)}


class ByHand:
    """The same network on the same batches, in order; `learn` leaves the gradient of one update."""

    def __init__(self, chosen):
        self.dataset = data.load(chosen.data, 3)
        self.model = models.build(chosen.network.model, self.dataset.input_shape, self.dataset.classes, 3)
        self.chosen = chosen

    def updates(self):
        step = 0
        for epoch in range(2):
            order = torch.randperm(203, generator=torch.Generator().manual_seed(fold(3, _ORDER, epoch) >> 1))
            for batch in torch.split(order, partition(203, 64)):
                yield step, batch
                step += 1

    def learn(self, step, batch, perturbed=contextlib.nullcontext):
        for index, ghost in enumerate(torch.split(batch, partition(len(batch), 24))):
            torch.default_generator.manual_seed(fold(3, _STEP, step, index) >> 1)
            with perturbed():
                loss = functional.cross_entropy(self.model(self.dataset.train.inputs[ghost]), self.targets(ghost))
                (loss * (len(ghost) / len(batch))).backward()

    def targets(self, ghost):
        return self.dataset.train.targets[ghost]

    def clip(self):
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), 5.0)


@pytest.mark.parametrize("method, rho", [("sam", None), ("asam", 0.2)])
def test_sam_by_hand(method, rho, tmp_path):
    chosen = settings(**PLAIN, method=method, rho=rho)
    folder, _ = run(tmp_path / "run", chosen)
    hand = ByHand(chosen)
    sam = SAM(hand.model.parameters(), torch.optim.SGD, rho=rho or 0.05, adaptive=method == "asam", **SGD)
    for step, batch in hand.updates():
        hand.learn(step, batch)
        sam.first_step(zero_grad=True)
        with frozen_running_stats(hand.model):
            hand.learn(step, batch)
        hand.clip()
        sam.second_step(zero_grad=True)
    assert equal(weights(folder), hand.model.state_dict())


def test_sams_move_is_along_the_gradient():
    """The package's, against the formula: rho g / |g|."""
    weight = torch.nn.Parameter(torch.tensor([3.0, 4.0]))
    sam = SAM([weight], torch.optim.SGD, rho=0.5, lr=0.1)
    weight.square().sum().div(2).backward()
    sam.first_step(zero_grad=True)
    torch.testing.assert_close(weight.detach(), torch.tensor([3.3, 4.4]))


def test_momentum_sam_by_hand(tmp_path):
    chosen = settings(**PLAIN, method="momentum_sam", rho=0.2)
    folder, _ = run(tmp_path / "run", chosen)
    hand = ByHand(chosen)
    parameters = list(hand.model.parameters())
    optimizer = torch.optim.SGD(parameters, **SGD)

    @contextlib.contextmanager
    def perturbed():
        before = [p.detach().clone() for p in parameters]
        if optimizer.state:
            buffers = [optimizer.state[p]["momentum_buffer"] for p in parameters]
            norm = torch.stack([buffer.norm() for buffer in buffers]).norm()
            with torch.no_grad():
                for parameter, buffer in zip(parameters, buffers, strict=True):
                    parameter.add_(buffer * (-0.2 / (norm + 1e-12)))
        yield
        with torch.no_grad():
            for parameter, copy in zip(parameters, before, strict=True):
                parameter.copy_(copy)

    for step, batch in hand.updates():
        hand.learn(step, batch, perturbed)
        hand.clip()
        optimizer.step()
        optimizer.zero_grad()
    assert equal(weights(folder), hand.model.state_dict())


@pytest.mark.parametrize("method", ["ema", "swa"])
def test_averages_by_hand(method, tmp_path):
    own = {"average_decay": 0.8} if method == "ema" else {"average_start": 0.5}
    chosen = settings(**PLAIN | {"epochs": 2}, method=method, **own)
    folder, result = run(tmp_path / "run", chosen)
    hand = ByHand(chosen)
    optimizer, average = torch.optim.SGD(hand.model.parameters(), **SGD), None
    for step, batch in hand.updates():
        hand.learn(step, batch)
        hand.clip()
        optimizer.step()
        optimizer.zero_grad()
        now = [p.detach().clone() for p in hand.model.parameters()]
        if method == "ema":
            average = now if average is None else [torch.lerp(a, n, 1 - 0.8) for a, n in zip(average, now, strict=True)]
        elif step == 7:  # the last of the second epoch, the first that counts
            average = now
    with torch.no_grad():
        for parameter, value in zip(hand.model.parameters(), average, strict=True):
            parameter.copy_(value)
    recompute_running_stats(hand.model, [hand.dataset.train.inputs])
    found = weights(folder)
    for name, value in hand.model.state_dict().items():
        torch.testing.assert_close(found[name], value, rtol=1e-5, atol=1e-6)
    hand.model.eval()
    right = hand.model(hand.dataset.test.inputs).argmax(1) == hand.dataset.test.targets
    assert result.test_accuracy_last == pytest.approx(100 * right.float().mean().item())


def test_swa_averages_its_epochs(tmp_path):
    chosen = settings(method="swa", average_start=0.5, save_all=True)
    folder, _ = run(tmp_path / "swa", chosen)
    plain, _ = run(tmp_path / "plain", settings(save_all=True))
    epochs = [weights(plain, f"epoch-{epoch}") for epoch in (3, 4)]
    for name in ("0.weight", "4.bias"):
        torch.testing.assert_close(weights(folder)[name], (epochs[0][name] + epochs[1][name]) / 2)
    assert equal(weights(folder, "epoch-1"), weights(plain, "epoch-1"))  # before it starts, the weights themselves


@pytest.mark.parametrize(
    "method, means",
    [
        ("lpf", {"distribution": "normal", "scale": "filter", "noise_schedule": "cosine"}),
        ("mrwp", {"distribution": "normal", "scale": "filter", "clean_share": 0.5}),
    ],
)
def test_methods_that_are_noise_equal_their_options(method, means, tmp_path):
    named, _ = run(tmp_path / "named", settings(method=method))
    spelled, _ = run(tmp_path / "spelled", settings(**means))
    plain, _ = run(tmp_path / "plain", settings())
    assert equal(weights(named), weights(spelled))
    assert not equal(weights(named), weights(plain))


def test_auto_changes_the_strength(tmp_path):
    folder, _ = run(tmp_path / "run", settings(strength="auto"))
    strengths = [row.strength for row in folder.metrics()]
    assert len(set(strengths)) > 1
    assert min(strengths) > 0


@pytest.mark.parametrize(
    "changes, text",
    [
        ({"rho": 0.1}, "rho is 0.1 and the method smoothout, which has none.*--method momentum_sam"),
        ({"average_decay": 0.9, "method": "swa"}, "average_decay is 0.9 and the method swa.*--method ema"),
        ({"average_start": 0.9, "method": "ema"}, "average_start is 0.9 and the method ema.*--method swa"),
        ({"method": "sam"}, "strength is 0.05 and the method sam, which has no noise"),
        ({"method": "momentum_sam", "strength": "auto"}, "strength is auto and the method momentum_sam"),
        ({"method": "lpf", "strength": 0.0}, "the method is lpf and strength 0.*Give --strength"),
        ({"method": "lpf", "scale": "weight"}, "scale is 'weight' and the method lpf, which means 'filter'"),
        ({"method": "mrwp", "clean_share": 0.2}, "clean_share is 0.2 and the method mrwp, which means 0.5"),
        ({"method": "lpf", "strength": "auto"}, "strength is 'auto' and the method lpf, whose schedule 'cosine'"),
        ({"strength": "auto", "noise_schedule": "anneal"}, "strength is 'auto' and the noise schedule 'anneal'"),
        ({"strength": "auto", "ghost_batch_size": 64}, "one ghost batch of 64 samples.*--ghost-batch-size below 64"),
        ({"strength": "auto", "batch_size": 129, "ghost_batch_size": 128}, "one ghost batch of 129 samples"),
        ({"strength": "auto", "batch_size": 2000, "ghost_batch_size": 2000}, "--ghost-batch-size below"),
        ({"method": "mrwp", "ghost_batch_size": 64}, "clean_share is 0.5 and an update has one ghost batch of 64"),
        ({"method": "sam", "strength": 0.0, "precision": "fp16"}, "precision is fp16 and the method sam"),
        ({"method": "sam", "strength": 0.0, "copies": 2}, "copies is 2 and the method sam.*Leave --copies out"),
        ({"method": "momentum_sam", "strength": 0.0, "momentum": 0.0}, "SGD keeps no momentum"),
    ],
)
def test_what_does_not_go_together(changes, text, tmp_path):
    with pytest.raises(ValueError, match=text):
        run(tmp_path / "run", settings(**changes))


def test_two_batches_an_update_are_two_ghost_batches():
    methods.check(settings(strength="auto", batch_size=64, ghost_batch_size=128, accumulation=2))


def test_a_later_epoch_without_momentum():
    phases = [Phase("SGD", 0.1, {"momentum": 0.9}), Phase("Adagrad", 0.1, {})]
    chosen = settings(method="momentum_sam", strength=0.0)
    methods.check_momentum(chosen, phases[:1])
    with pytest.raises(ValueError, match="Adagrad keeps no momentum, which Momentum-SAM follows"):
        methods.check_momentum(chosen, phases)


def test_fewer_samples_than_a_batch(tmp_path):
    with pytest.raises(ValueError, match="one ghost batch of .* samples, which stays clean.*or more samples"):
        run(tmp_path / "run", settings(strength="auto", batch_size=4000, ghost_batch_size=3000))


def test_an_unknown_method():
    with pytest.raises(ValueError, match="method is 'esam'; expected one of 'smoothout', 'lpf'"):
        settings(method="esam")
