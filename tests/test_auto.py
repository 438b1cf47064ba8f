"""The strength that training finds, and clean ghost batches."""

import copy
import itertools
import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from smoothout import AdaSmoothOut, AutoStrength, SmoothOut
from smoothout.auto import Controller


def model():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 2))


def told(smoother, *losses):
    """One update in which these are the losses of the ghost batches; returns which of them had noise."""
    weight = next(iter(smoother._parameters))
    clean, moved = weight.detach().clone(), []
    for loss in losses:
        with smoother.perturbed():
            moved.append(not torch.equal(weight, clean))
        smoother.observe(torch.as_tensor(loss))
    smoother.step()
    return moved


def test_the_first_ghost_batch_stays_clean():
    assert told(SmoothOut(model(), "auto"), 1.0, 1.0, 1.0) == [False, True, True]


@pytest.mark.parametrize(
    "share, clean",
    [(0.5, [0, 2, 4, 6, 8]), (0.25, [0, 4, 8]), (0.3, [0, 3, 6]), (0.9, [0, 1, 2, 3, 4, 5, 6, 7, 8])],
)
def test_clean_share(share, clean):
    moved = told(SmoothOut(model(), 0.1, clean_share=share), *[1.0] * 10)
    assert [index for index, each in enumerate(moved) if not each] == clean


@given(share=st.floats(0, 0.99), ghosts=st.integers(1, 64))
def test_of_any_number_of_ghost_batches_at_least_the_share_is_clean(share, ghosts):
    smoother = SmoothOut(nn.Linear(1, 1), 0.1, clean_share=share)
    count = sum(smoother._clean(stream) for stream in range(ghosts))
    exact = smoother._clean_share * ghosts
    assert exact <= count < exact + 1


def test_the_strength_follows_the_gap():
    smoother = SmoothOut(model(), AutoStrength(target=0.1, measure="gap", speed=0.01))
    strengths = [smoother.strength]
    # Noisy mean minus clean: .05, .05, .15, .15, .05, then .2 up to the end.
    for noisy in ((1.1, 1.0), (1.1, 1.0), (1.2, 1.1), (1.2, 1.1), (1.1, 1.0), *[(1.3, 1.1)] * 3):
        told(smoother, 1.0, *noisy)
        strengths.append(smoother.strength)
    factors = [after / before for before, after in itertools.pairwise(strengths)]
    # Ten times the speed at first; a turn halves it: at the third, fifth and sixth update.
    expected = [1.1, 1.1, 1 / 1.05, 1 / 1.05, 1.025, *[1 / 1.0125] * 3]
    assert factors == pytest.approx(expected)


def test_the_ratio_is_to_the_clean_loss():
    smoother = SmoothOut(model(), AutoStrength(target=0.1, measure="ratio"))
    start = smoother.strength
    told(smoother, 2.0, 2.15)  # a gap of .15, 7.5 %
    assert smoother.strength > start
    start = smoother.strength
    told(smoother, 1.0, 1.15)
    assert smoother.strength < start


def test_the_speed_ends_at_the_given_one():
    controller = Controller(AutoStrength(target=0.1, measure="gap", speed=0.02))
    strength = 1.0
    for index in range(12):
        controller.observe(torch.tensor(1.0), clean=True)
        controller.observe(torch.tensor(1.05 + 0.1 * (index % 2)), clean=False)
        before, strength = strength, controller.update(strength)
    assert before / strength == pytest.approx(1.02)


@pytest.mark.parametrize("losses", [(1.0, math.nan), (math.nan, 1.0), (1.0, math.inf)])
def test_a_loss_that_is_not_finite_lowers_the_strength(losses):
    smoother = SmoothOut(model(), "auto")
    start = smoother.strength
    told(smoother, *losses)
    assert smoother.strength < start


@pytest.mark.parametrize("scale", ["none", "weight", "filter"])
@pytest.mark.parametrize("distribution", ["uniform", "normal"])
def test_it_starts_from_a_relative_noise(scale, distribution):
    smoother = SmoothOut(nn.Linear(400, 100), AutoStrength(start=0.05), scale=scale, distribution=distribution)
    assert smoother.summary().relative_noise == pytest.approx(0.05, rel=0.02)


def test_it_finds_the_strength_whose_gap_is_the_target():
    """On a quadratic |w|^2 / 2 in n dimensions the gap is n a^2 / 6, whatever w is."""
    weight = nn.Parameter(torch.ones(600))
    smoother = SmoothOut([("weight", weight)], AutoStrength(target=0.5, measure="gap", speed=0.01))
    for _ in range(400):
        for _ in range(4):
            with smoother.perturbed():
                loss = weight.square().sum() / 2
            smoother.observe(loss)
        smoother.step()
    assert smoother.strength == pytest.approx(math.sqrt(6 * 0.5 / 600), rel=0.1)


def test_the_state_goes_on_bit_for_bit():
    first, second = (SmoothOut(model(), "auto") for _ in range(2))
    gaps = [0.05, 0.2, 0.05, 0.01, 0.3, 0.05]
    for gap in gaps[:3]:
        told(first, 1.0, 1.0 + gap)
    first.observe(torch.tensor(1.0))  # in the midst of an update
    second.load_state_dict(copy.deepcopy(first.state_dict()))
    for smoother in (first, second):
        for gap in gaps[3:]:
            told(smoother, 1.0, 1.0 + gap)
    assert first.state_dict() == second.state_dict()


def test_a_state_of_another_target_is_refused():
    state = SmoothOut(model(), AutoStrength(target=0.1)).state_dict()
    with pytest.raises(ValueError, match="the state was saved with auto=.*'target': 0.1.* Build it with the saved"):
        SmoothOut(model(), AutoStrength(target=0.2)).load_state_dict(state)
    with pytest.raises(ValueError, match="the state has the keys"):
        SmoothOut(model(), 0.1).load_state_dict(state)


def test_observing_with_a_fixed_strength_does_nothing():
    smoother = AdaSmoothOut(model(), 0.3)
    told(smoother, 1.0, 5.0)
    assert smoother.strength == 0.3


def test_a_loss_that_was_never_told():
    smoother = SmoothOut(model(), "auto")
    with smoother.perturbed():
        pass
    with pytest.raises(RuntimeError, match="no loss was observed in this update.*Call smoother.observe"):
        smoother.step()


def test_one_ghost_batch_an_update():
    smoother = SmoothOut(model(), "auto")
    with pytest.raises(RuntimeError, match="one ghost batch, which stays clean.*Split each batch"):
        told(smoother, 1.0)


def test_no_clean_ghost_batch():
    smoother = SmoothOut(model(), "auto")
    for stream in (1, 2):
        with smoother.perturbed(stream=stream):
            pass
        smoother.observe(torch.tensor(1.0))
    with pytest.raises(RuntimeError, match="none was stream 0.*Number the ghost batches of all processes"):
        smoother.step()


@pytest.mark.parametrize("loss", [torch.zeros(4), torch.zeros(2, 1)])
def test_a_loss_that_is_no_number(loss):
    smoother = SmoothOut(model(), "auto")
    with smoother.perturbed():
        pass
    with pytest.raises(ValueError, match=r"has shape \(.*\); expected one number. Pass the ghost batch's mean"):
        smoother.observe(loss)


def test_a_loss_of_shape_1_is_one_number():
    one, other = SmoothOut(model(), "auto"), SmoothOut(model(), "auto")
    told(one, [1.0], [2.0])
    told(other, 1.0, 2.0)
    assert one.strength == other.strength


def test_a_ratio_to_a_negative_loss():
    smoother = SmoothOut(model(), "auto")
    with pytest.raises(ValueError, match="the clean loss is -1 and the target a ratio.*measure='gap'"):
        told(smoother, -1.0, -1.0)
    gap = SmoothOut(model(), AutoStrength(measure="gap", target=0.1))
    before = gap.strength
    told(gap, -1.0, -1.0)
    assert gap.strength > before


def test_a_short_last_update_changes_nothing():
    smoother = SmoothOut(model(), "auto")
    told(smoother, 1.0, 1.0)
    before = smoother.strength
    told(smoother, 1.0)
    assert smoother.strength == before


@pytest.mark.parametrize("name", ["target", "speed", "start"])
def test_settings_out_of_range(name):
    with pytest.raises(ValueError, match=f"{name} is 0; expected a finite number > 0"):
        AutoStrength(**{name: 0})


def test_an_unknown_measure():
    with pytest.raises(ValueError, match="measure is 'sum'; expected one of 'gap', 'ratio'"):
        AutoStrength(measure="sum")


def test_a_share_out_of_range():
    with pytest.raises(ValueError, match="clean_share is 1; expected a share below 1"):
        SmoothOut(model(), 0.1, clean_share=1)


def test_weights_without_a_size():
    with pytest.raises(ValueError, match="every weight that gets noise is 0.*Initialise the weights first"):
        SmoothOut([("weight", nn.Parameter(torch.zeros(3)))], "auto")


def test_an_unknown_word():
    with pytest.raises(TypeError, match="strength is 'automatic'; expected a number"):
        SmoothOut(model(), "automatic")


def test_clean_blocks_do_not_hide_a_forgotten_step():
    net = model()
    smoother, optimizer = SmoothOut(net, 0.1, clean_share=0.5), torch.optim.SGD(net.parameters(), lr=0.1)
    for _ in range(2):
        with smoother.perturbed():
            net(torch.ones(1, 4)).sum().backward()
    optimizer.step()
    with pytest.warns(RuntimeWarning, match="smoother.step\\(\\) was not called"), smoother.perturbed():
        pass


@pytest.mark.parametrize("schedule", ["anneal", lambda step: 1.0])
def test_a_schedule_is_refused(schedule):
    with pytest.raises(ValueError, match="which would multiply away what is found. Leave the schedule out"):
        SmoothOut(model(), "auto", schedule=schedule)


def test_noise_that_stays_is_refused():
    with pytest.raises(ValueError, match="denoise False, with which no ghost batch is clean"):
        SmoothOut(model(), "auto", denoise=False)


def test_before_the_noise_starts_nothing_is_learned():
    smoother = SmoothOut(model(), "auto", start_step=2)
    start = smoother.strength
    for _ in range(2):
        assert told(smoother, 1.0, 9.0) == [False, False]
        assert smoother.strength == start
    assert told(smoother, 1.0, 1.0 + 0.14) == [False, True]  # nothing of before is left to average with
    assert smoother.strength > start
    told(smoother, 1.0, 1.16)
    assert smoother.strength < 1.1 * start


def test_a_block_that_was_never_entered_is_told_where_the_user_stands():
    smoother = SmoothOut(model(), 0.1)
    smoother.perturbed()
    with pytest.warns(RuntimeWarning, match="was never entered") as caught:
        smoother.step()
    assert caught[0].filename == __file__
