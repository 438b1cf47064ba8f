"""Regimes: options first, then the model's, then defaults."""

import pytest
import torch

from smoothout.train.config import Optimization
from smoothout.train.regime import Phase, make_optimizer, resolve

SEED_README = {
    0: {"optimizer": "SGD", "lr": 1e-2, "weight_decay": 5e-4, "momentum": 0.9},
    15: {"lr": 1e-3, "weight_decay": 0},
}


def phases(options=None, regime=None, epochs=20, stretch=1):
    return resolve(Optimization(**(options or {})), regime, epochs, stretch)


def rates(*args, **kwargs):
    return [phase.lr for phase in phases(*args, **kwargs)]


def test_without_a_regime_defaults_hold():
    assert phases(epochs=4) == (
        *(Phase("SGD", 0.05, {"momentum": 0.9, "weight_decay": 1e-4}),) * 2,
        Phase("SGD", 0.05 * 0.1**1, {"momentum": 0.9, "weight_decay": 1e-4}),
        Phase("SGD", 0.05 * 0.1**2, {"momentum": 0.9, "weight_decay": 1e-4}),
    )


def test_a_dict_is_sticky():
    first, *_, last = phases(regime=SEED_README)
    assert first == Phase("SGD", 1e-2, {"weight_decay": 5e-4, "momentum": 0.9})
    assert last == Phase("SGD", 1e-3, {"weight_decay": 0, "momentum": 0.9})
    assert rates(regime=SEED_README) == [1e-2] * 15 + [1e-3] * 5


def test_a_function_is_sticky_too():
    def regime(epoch):
        return {"lr": 0.1 / (epoch + 1)} | ({"optimizer": "Adam", "betas": (0.5, 0.9)} if epoch == 2 else {})

    found = phases(regime=regime, epochs=4)
    assert [phase.optimizer for phase in found] == ["SGD", "SGD", "Adam", "Adam"]
    assert [phase.lr for phase in found] == [0.1, 0.05, 0.1 / 3, 0.025]
    assert found[3].arguments == {"betas": (0.5, 0.9), "weight_decay": 0}


def test_what_a_regime_leaves_open_stays_at_torchs_defaults():
    [phase] = phases(regime={0: {"optimizer": "Adam", "lr": 1e-3}}, epochs=1)
    made = make_optimizer(phase, [torch.nn.Parameter(torch.zeros(1))], phase.lr)
    assert made.defaults["weight_decay"] == 0
    assert made.defaults["lr"] == 1e-3


def test_adaptation_stretches_milestones():
    adapted = rates(regime={0: {"lr": 0.1}, 2: {"lr": 0.01}}, epochs=12, stretch=3)
    assert adapted == [0.1] * 6 + [0.01] * 6
    assert rates(regime=lambda epoch: {"lr": float(epoch)}, epochs=4, stretch=2) == [0.0, 0.0, 1.0, 1.0]
    own = rates({"milestones": (1, 2), "lr": 1.0}, epochs=6, stretch=2)
    assert own == pytest.approx([1, 1, 0.1, 0.1, 0.01, 0.01])


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"lr": 0.2}, [0.2] * 15 + [0.02] * 5),  # the regime's course, at the given rate
        ({"milestones": (10,)}, [1e-2] * 10 + [1e-3] * 10),
        ({"lr": 1.0, "milestones": (10,), "lr_decay": 0.5}, [1.0] * 10 + [0.5] * 10),
        ({"lr_decay": 0.5}, [1e-2] * 10 + [5e-3] * 5 + [2.5e-3] * 5),
        ({"lr_schedule": "constant"}, [1e-2] * 20),
        ({"lr_schedule": "cosine", "lr": 3.0}, [3.0] * 20),
        ({"regime": False}, [0.05] * 10 + [0.05 * 0.1] * 5 + [0.05 * 0.1**2] * 5),
    ],
)
def test_options_win_over_the_regime(options, expected):
    assert rates(options, SEED_README) == pytest.approx(expected)


def test_given_momentum_weight_decay_and_optimizer_win_in_every_epoch():
    found = phases({"momentum": 0.5, "weight_decay": 0.25}, SEED_README)
    assert {(p.arguments["momentum"], p.arguments["weight_decay"]) for p in found} == {(0.5, 0.25)}
    adam = phases({"optimizer": "Adam", "lr": 1e-3}, SEED_README)
    assert adam[0] == Phase("Adam", 1e-3, {"weight_decay": 5e-4})  # Adam has no momentum
    assert adam[-1] == Phase("Adam", pytest.approx(1e-4), {"weight_decay": 0})


def test_another_optimizer_needs_its_own_rate():
    with pytest.raises(
        ValueError,
        match="the optimizer is Adam and the .* has learning rates for SGD; expected one that",
    ):
        phases({"optimizer": "Adam"}, SEED_README)


@pytest.mark.parametrize(
    ("regime", "error", "text"),
    [
        ([1], TypeError, "the model's regime is a list; expected a dict"),
        ({0: 0.1}, TypeError, "the model's regime gives 0.1 for epoch 0; expected a dict"),
        ({"0": {"lr": 1}}, TypeError, "an epoch of the model's regime is '0'; expected a whole number"),
        ({0: {"lr": -1.0}}, ValueError, "lr of the model's regime in epoch 0 is -1.0"),
        (
            {0: {"lr": 0.1, "weight_decya": 0}},
            ValueError,
            "SGD's setting .* in epoch 0 is 'weight_decya'; expected one of",
        ),
        (
            {0: {"lr": 0.1}, 3: {"optimizer": "Adma"}},
            ValueError,
            "the optimizer of .* in epoch 3 is 'Adma'; expected one",
        ),
        ({3: {"lr": 0.1}}, ValueError, "sets lr later, but not in epoch 0"),
        (lambda epoch: None, TypeError, "the model's regime gives None for epoch 0"),
    ],
)
def test_regimes_of_another_form(regime, error, text):
    with pytest.raises(error, match=text):
        phases(regime=regime)


def test_rate_zero_cannot_be_scaled():
    with pytest.raises(ValueError, match="starts with lr 0, which --lr cannot scale"):
        phases({"lr": 0.1}, {0: {"lr": 0.0}})


LATE = [
    (
        {0: {"lr": 0.1}, 1: {"weight_decay": "1e-4"}},
        "SGD does not take .*in force from epoch 2 on: TypeError",
    ),
    ({0: {"lr": 0.1}, 1: {"optimizer": "Adam", "lr": 0.1, "betas": (1.5, 0.9)}}, "Adam does not .*from epoch 2 .*beta"),
    (
        {0: {"optimizer": "RMSprop", "lr": 0.1}, 1: {"momentum": 0.9}},
        "RMSprop does not .*from epoch 2 on: KeyError",
    ),
    ({0: {"optimizer": "Adam", "lr": 0.1}, 1: {"amsgrad": True}}, "Adam does not take .*from epoch 2 on: KeyError"),
    ({0: {"lr": 0.1, "nesterov": True}}, "SGD does not take .*from epoch 1 on: ValueError: Nesterov"),
]


@pytest.mark.parametrize(("regime", "text"), LATE)
def test_what_an_optimizer_refuses_later_is_told_at_once(regime, text):
    with pytest.raises(ValueError, match=text):
        phases(regime=regime)


@pytest.mark.parametrize("course", [{"lr_schedule": "cosine"}, {"milestones": (1,)}, {"lr_decay": 0.5}])
def test_a_rate_is_never_another_optimizers(course):
    with pytest.raises(ValueError, match="the optimizer is Adam and the model's regime has learning rates for SGD"):
        phases({"optimizer": "Adam", **course}, SEED_README)
    with pytest.raises(ValueError, match="the optimizer is that of the regime and .* for Adam, SGD; expected one"):
        phases(course, TWO)


def test_a_regime_that_starts_late():
    regime = {2: {"weight_decay": 5e-4}}
    assert [p.arguments for p in phases(regime=regime, epochs=3)] == [
        *({"momentum": 0, "weight_decay": 0},) * 2,
        {"momentum": 0, "weight_decay": 5e-4},
    ]
    assert rates({"lr_schedule": "constant"}, {2: {"lr": 0.01}}, epochs=3) == [0.05] * 3
    with pytest.raises(ValueError, match="sets lr later, but not in epoch 0; .* Give --lr-schedule, or --no-regime"):
        rates({"lr": 0.1}, {2: {"lr": 0.01}})


TWO = {0: {"optimizer": "SGD", "lr": 0.1}, 3: {"optimizer": "Adam", "lr": 1e-3}}


def test_one_number_does_not_scale_the_rates_of_two_optimizers():
    with pytest.raises(ValueError, match="the optimizer is SGD and the .* has learning rates for Adam, SGD"):
        phases({"optimizer": "SGD"}, TWO)
    with pytest.raises(ValueError, match="lr is 1.0 and the model's regime has rates for Adam, SGD, which one number"):
        phases({"lr": 1.0}, TWO)
    assert rates({"lr": 1.0, "lr_schedule": "constant"}, TWO, epochs=4) == [1.0] * 4
