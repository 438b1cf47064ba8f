"""The public face: the block, its steps, its state, its errors."""

import copy
import inspect
import io
import math
import pickle
import warnings

import pytest
import references
import torch
from torch import nn

from smoothout import AdaSmoothOut, SmoothOut, ghost_batches


def linear():
    return nn.Linear(4, 3)


def inside(smoother, model, **names):
    with smoother.perturbed(**names):
        return [p.detach().clone() for p in model.parameters()]


def same(one, other):
    return all(torch.equal(a, b) for a, b in zip(one, other, strict=True))


# -- which noise ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("scale", ["none", "weight", "filter"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16, torch.float16], ids=str)
def test_weights_inside_are_the_references(scale, dtype):
    model = nn.Sequential(linear(), nn.BatchNorm1d(3), linear()).to(dtype)
    smoother = SmoothOut(model, 0.4, scale=scale, seed=9)
    smoother.step()
    found = inside(smoother, model, stream=2, draw=1)
    for ordinal, (parameter, weights) in enumerate(zip(model.parameters(), found, strict=True)):
        clean = ordinal in (2, 3)
        expected = parameter if clean else references.perturbed(parameter, ordinal, 0.4, scale, "uniform", (9, 1, 2, 1))
        assert torch.equal(weights, expected)


def test_ada_is_filter_scale():
    model = linear()
    assert same(inside(AdaSmoothOut(model, 0.3), model), inside(SmoothOut(model, 0.3, scale="filter"), model))


def test_ada_takes_every_option_but_scale():
    ours = inspect.signature(SmoothOut.__init__).parameters.keys() - {"scale"}
    options = inspect.get_annotations(AdaSmoothOut.__init__)["options"].__args__[0].__annotations__.keys()
    assert options == ours - {"self", "model_or_named_parameters", "strength"}


def test_streams_are_counted_and_can_be_named():
    model = linear()
    counted = SmoothOut(model, 0.1)
    noises = [inside(counted, model) for _ in range(3)]
    named = SmoothOut(model, 0.1)
    assert all(same(inside(named, model, stream=k), noises[k]) for k in (2, 0, 1))
    assert not same(noises[0], noises[1])
    assert not same(inside(named, model, stream=0, draw=1), noises[0])
    counted.step()
    assert not same(inside(counted, model), noises[0])


def test_streams_are_counted_while_there_is_no_noise_yet():
    model = linear()
    always, later = SmoothOut(model, 0.1), SmoothOut(model, 0.0)
    inside(always, model)
    inside(later, model)
    later.strength = 0.1
    assert same(inside(always, model), inside(later, model))


@pytest.mark.parametrize("options", [{"strength": 0.0}, {"strength": 0.1, "start_step": 2}])
def test_without_noise_nothing_happens(options):
    model = linear()
    smoother = SmoothOut(model, **options)
    versions = [p._version for p in model.parameters()]
    loss = None
    with smoother.perturbed():
        loss = model(torch.randn(2, 4)).sum()
    loss.backward()
    assert [p._version for p in model.parameters()] == versions


def test_start_step():
    model = linear()
    smoother = SmoothOut(model, 0.1, start_step=2)
    amplitudes = []
    for _ in range(4):
        amplitudes.append(smoother.amplitude)
        smoother.step()
    assert amplitudes == [0, 0, 0.1, 0.1]


def test_a_schedule_of_ones_own():
    smoother = SmoothOut(linear(), 0.2, schedule=lambda step: step / 4)
    smoother.step()
    assert smoother.amplitude == 0.05


def test_a_schedule_is_asked_once_an_update_and_strength():
    asked = []
    smoother = SmoothOut(linear(), 0.2, schedule=lambda step: asked.append(step) or 0.5)
    for strength in (0.2, 0.4, 0.2):
        smoother.strength = strength
        with smoother.perturbed() as noise:
            for _ in noise.each(range(3)):
                assert smoother.amplitude == strength / 2
    assert asked == [0, 0, 0]
    smoother.step()
    assert smoother.amplitude == 0.1
    assert asked == [0, 0, 0, 1]


def test_two_smoothers_side_by_side():
    one, other = linear(), linear()
    clean = [p.detach().clone() for model in (one, other) for p in model.parameters()]
    with SmoothOut(one, 0.1).perturbed(), SmoothOut(other, 0.1).perturbed():
        torch.optim.SGD(linear().parameters(), 0.1).step()  # an optimizer of another model is free to step
        assert not torch.equal(one.weight, clean[0])
        assert not torch.equal(other.weight, clean[2])
    assert same([*one.parameters(), *other.parameters()], clean)


# -- summary -------------------------------------------------------------------------------------------------


def test_summary_tells_the_realised_noise():
    model = nn.Sequential(nn.Linear(100, 50), nn.BatchNorm1d(50))
    smoother = AdaSmoothOut(model, 0.3)
    summary = smoother.summary()
    assert summary.weights == 5050
    assert [tensor.name for tensor in summary.perturbed] == ["0.weight", "0.bias"]
    assert summary.tensors[0].relative_noise == pytest.approx(0.3, rel=1e-4)
    assert summary.tensors[0].filters == 50
    with smoother.perturbed():
        inside_ = [p.detach().clone() for p in model[0].parameters()]
    clean = [p.detach() for p in model[0].parameters()]
    moved = math.sqrt(sum(float((a - b).square().sum()) for a, b in zip(inside_, clean, strict=True)))
    norm = math.sqrt(sum(float(p.square().sum()) for p in clean))
    assert summary.relative_noise == pytest.approx(moved / norm, rel=1e-6)
    assert "2 of 4 tensors, 5,050 weights perturbed" in str(summary)
    assert "- (exclude)" in str(summary)


def test_summary_sees_noise_vanish_in_half_precision():
    model = nn.Linear(50, 50, bias=False).to(torch.bfloat16)
    nn.init.ones_(model.weight)
    assert SmoothOut(model, 1e-3).summary().relative_noise == 0
    assert SmoothOut(model.float(), 1e-3).summary().relative_noise == pytest.approx(1e-3 / math.sqrt(3), rel=0.05)


def test_summary_without_any_noise():
    model = nn.Linear(2, 2, bias=False)
    nn.init.zeros_(model.weight)
    assert math.isnan(SmoothOut(model, 0.1).summary().relative_noise)
    assert SmoothOut(nn.BatchNorm1d(2), 0.1).summary().relative_noise == 0


# -- state ---------------------------------------------------------------------------------------------------


def test_a_state_goes_on_with_the_same_noise():
    model = linear()
    smoother = SmoothOut(model, 0.1, seed=5)
    smoother.step()
    inside(smoother, model)
    buffer = io.BytesIO()
    torch.save(smoother.state_dict(), buffer)
    buffer.seek(0)
    other = SmoothOut(model, 0.7, seed=1)
    other.load_state_dict(torch.load(buffer, weights_only=True))
    assert (other.updates, other.seed, other.strength) == (1, 5, 0.1)
    assert same(inside(smoother, model), inside(other, model))


def test_a_state_of_another_kind_is_refused_and_changes_nothing():
    smoother = SmoothOut(linear(), 0.1)
    with pytest.raises(ValueError, match=r"the state has the keys \['updates'\]; expected .* Pass what state_dict"):
        smoother.load_state_dict({"updates": 1})
    with pytest.raises(ValueError, match="strength is -1.0"):
        smoother.load_state_dict(smoother.state_dict() | {"updates": 3, "strength": -1.0})
    assert smoother.updates == 0


def test_a_state_of_other_settings_is_refused():
    state = SmoothOut(linear(), 0.1, scale="weight").state_dict()
    with pytest.raises(ValueError, match=r"scale='weight' and this smoother has scale='none'.*Build it with"):
        SmoothOut(linear(), 0.1).load_state_dict(state)


@pytest.mark.parametrize("schedule", ["constant", "anneal", "tanh", "cosine"])
@pytest.mark.parametrize("clone", [copy.deepcopy, lambda s: pickle.loads(pickle.dumps(s))])
def test_copies_carry_their_model_along(clone, schedule):
    model = linear()
    smoother = SmoothOut(model, 0.1, schedule=schedule, total_steps=9)
    smoother.step()
    other = clone(smoother)
    other_model = other._source
    assert other_model is not model
    assert same(inside(smoother, model), inside(other, other_model))
    assert same(model.parameters(), other_model.parameters())


# -- errors --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("strength", [-0.1, float("nan"), float("inf")])
def test_impossible_strengths(strength):
    with pytest.raises(ValueError, match=f"strength is {strength}; expected a finite number >= 0. Use 0"):
        SmoothOut(linear(), strength)


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"scale": "layer"}, "scale is 'layer'; expected one of 'none', 'weight', 'filter'"),
        ({"distribution": "cauchy"}, "distribution is 'cauchy'; expected one of 'uniform', 'normal'"),
        ({"one_dimensional": "no"}, "one_dimensional is 'no'; expected one of 'original', 'skip'"),
        ({"schedule": "cosine"}, "schedule='cosine' needs total_steps"),
        (
            {"total_steps": 10, "start_step": 10},
            "start_step is 10 of total_steps 10, so the noise would never start",
        ),
        ({"total_steps": 0}, "total_steps is 0; expected a whole number >= 1"),
        ({"seed": -1}, "seed is -1; expected a whole number >= 0"),
        ({"schedule": "anneal", "anneal_index": -1}, "anneal_index is -1; expected a finite number"),
    ],
)
def test_impossible_options(options, text):
    with pytest.raises(ValueError, match=text):
        SmoothOut(linear(), 0.1, **options)


def test_numbers_of_numpy_are_numbers():
    numpy = pytest.importorskip("numpy")
    smoother = SmoothOut(linear(), numpy.float32(0.5), seed=numpy.int64(3))
    with smoother.perturbed(stream=numpy.int32(1)):
        pass
    assert smoother.strength == 0.5


def test_a_schedule_that_is_none():
    with pytest.raises(TypeError, match="schedule is None; expected a name or a function"):
        SmoothOut(linear(), 0.1, schedule=None)


@pytest.mark.parametrize("value", ["0.1", True, None])
def test_a_strength_that_is_no_number(value):
    with pytest.raises(TypeError, match=f"strength is {value!r}; expected a number"):
        SmoothOut(linear(), value)


@pytest.mark.parametrize("schedule", ["tanh", "cosine"])
def test_a_schedule_past_its_end(schedule):
    smoother = SmoothOut(linear(), 0.1, schedule=schedule, total_steps=2)
    smoother.step()
    with smoother.perturbed():
        pass
    smoother.step()
    with pytest.raises(ValueError, match=f"'{schedule}' was made for total_steps=2 and 2 steps have been made"):
        smoother.perturbed().__enter__()
    assert smoother._open is None


def test_a_constant_schedule_has_no_end():
    smoother = SmoothOut(linear(), 0.1, total_steps=1)
    smoother.step()
    assert smoother.amplitude == 0.1


@pytest.mark.parametrize("factor", [-1.0, float("nan")])
def test_a_schedule_that_returns_nonsense(factor):
    smoother = SmoothOut(linear(), 0.1, schedule=lambda _: factor)
    with pytest.raises(ValueError, match=f"schedule 'custom' gives at step 0 is {factor}"):
        smoother.perturbed().__enter__()


def test_entering_twice():
    smoother = SmoothOut(linear(), 0.1)
    with (
        smoother.perturbed(),
        pytest.raises(RuntimeError, match=r"perturbed\(\) while .* opened at .*test_smoothing.py:\d+"),
    ):
        smoother.perturbed().__enter__()
    with smoother.perturbed():
        pass


def test_a_generator_that_holds_the_block_open():
    model = linear()
    smoother = SmoothOut(model, 0.1)
    clean = [p.detach().clone() for p in model.parameters()]

    def batches():
        with smoother.perturbed():
            yield

    generator = batches()
    next(generator)
    with pytest.raises(RuntimeError, match=r"step\(\) while .*a generator holds the block open, exhaust or close it"):
        smoother.step()
    generator.close()
    assert same(model.parameters(), clean)
    smoother.step()


@pytest.mark.parametrize(
    "action",
    [
        copy.deepcopy,
        pickle.dumps,
        SmoothOut.state_dict,
        SmoothOut.summary,
        lambda s: s.load_state_dict({}),
        SmoothOut.step,
    ],
    ids=["deepcopy", "pickle", "state_dict", "summary", "load_state_dict", "step"],
)
def test_what_the_open_block_refuses(action):
    smoother = SmoothOut(linear(), 0.1)
    with smoother.perturbed(), pytest.raises(RuntimeError, match="while the weights are perturbed"):
        action(smoother)


def test_an_optimizer_must_not_step_inside():
    model = linear()
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    smoother = SmoothOut(model, 0.1)
    with (
        smoother.perturbed(),
        pytest.raises(RuntimeError, match=r"SGD.step\(\) inside the perturbed\(\) block opened at"),
    ):
        optimizer.step()
    optimizer.step()


def test_a_closure_may_hold_the_whole_block_but_not_leave_it_open():
    model = linear()
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    smoother = SmoothOut(model, 0.1)
    blocks = []

    def whole():
        with smoother.perturbed():
            model(torch.ones(2, 4)).sum().backward()

    def closes():
        blocks.pop().__exit__(None, None, None)

    optimizer.step(whole)
    smoother.step()
    blocks.append(smoother.perturbed())
    blocks[0].__enter__()
    optimizer.step(closes)  # opened before, closed within: as Lightning does
    smoother.step()
    with smoother.perturbed():
        for call in (lambda: optimizer.step(lambda: None), lambda: optimizer.step(closure=lambda: None)):
            with pytest.raises(RuntimeError, match=r"SGD.step\(\) inside"):
                call()


def test_writing_weights_inside_is_told_after_the_restore():
    model = linear()
    clean = model.weight.detach().clone()
    with (
        pytest.raises(RuntimeError, match="'weight' was written inside the block.*Change weights after the block"),
        SmoothOut(model, 0.1).perturbed(),
        torch.no_grad(),
    ):
        model.weight.zero_()
    assert torch.equal(model.weight, clean)


def test_replacing_a_parameter_inside_is_told():
    model = linear()
    with (
        pytest.raises(RuntimeError, match="added, replaced, moved or frozen inside the block"),
        SmoothOut(model, 0.1).perturbed(),
    ):
        model.weight = nn.Parameter(model.weight.detach().clone())


def test_a_block_that_is_never_entered_warns():
    model = linear()
    smoother = SmoothOut(model, 0.1)
    smoother.perturbed()
    model(torch.ones(2, 4)).sum().backward()
    with pytest.warns(
        RuntimeWarning, match=r"test_smoothing.py:\d+ was never entered, so there was no noise. Write `with"
    ):
        smoother.step()
    smoother.step()


def test_a_block_is_left_once():
    model = linear()
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    block = SmoothOut(model, 0.1).perturbed()
    with block:
        model(torch.ones(2, 4)).sum().backward()
    optimizer.step()
    stepped = model.weight.detach().clone()
    with pytest.raises(RuntimeError, match="is not open; leave a block once"):
        block.__exit__(None, None, None)
    assert torch.equal(model.weight, stepped)


def test_a_forgotten_step_warns_once():
    model = linear()
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    smoother = SmoothOut(model, 0.1)

    def update():
        with smoother.perturbed():
            model(torch.ones(2, 4)).sum().backward()
        optimizer.step()

    update()
    with pytest.warns(RuntimeWarning, match=r"smoother.step\(\) was not called.*0 updates") as caught:
        update()
    assert caught[0].filename == __file__
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        update()


def test_no_warning_where_step_is_called():
    model = linear()
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    smoother = SmoothOut(model, 0.1)
    for _ in range(3):
        for x, _y in ghost_batches(torch.ones(6, 4), torch.ones(6), size=2):
            with smoother.perturbed():
                model(x).sum().backward()
        optimizer.step()
        smoother.step()


def test_another_smoother_on_the_same_weights_is_no_forgotten_step():
    model = linear()
    one, other = SmoothOut(model, 0.1), SmoothOut(model, 0.2)
    for _ in range(3):
        inside(one, model)
        inside(other, model)


def test_a_step_forgotten_before_the_start_warns_too():
    model = linear()
    smoother = SmoothOut(model, 0.1, start_step=5)
    inside(smoother, model)
    nn.init.zeros_(model.weight)
    with pytest.warns(RuntimeWarning, match="its schedule stands still"):
        inside(smoother, model)


def test_repr():
    smoother = SmoothOut(nn.Sequential(linear(), nn.BatchNorm1d(3)), 0.1)
    assert repr(smoother) == "SmoothOut(strength=0.1, scale='none', distribution='uniform', updates=0, weights=15)"


@pytest.mark.parametrize("scale", ["none", "weight", "filter"])
def test_an_antithetic_draw_is_the_same_noise_with_the_other_sign(scale):
    model = nn.Linear(7, 5).double()
    smoother = SmoothOut(model, 0.3, scale=scale)
    clean = model.weight.detach().clone()
    moved = {}
    for antithetic in (False, True):
        with smoother.perturbed(2, 1, antithetic=antithetic):
            moved[antithetic] = model.weight.detach() - clean
        assert torch.equal(model.weight, clean)
    assert moved[False].abs().max() > 0
    torch.testing.assert_close(moved[True], -moved[False], rtol=1e-12, atol=1e-15)


def test_a_clean_share_of_one_ghost_batch_is_told_once():
    model = torch.nn.Linear(3, 2)
    smoother = SmoothOut(model, 0.1, clean_share=0.5)
    with smoother.perturbed():
        pass
    with pytest.warns(RuntimeWarning, match="clean_share is 0.5 and this update had one ghost batch.*no noise"):
        smoother.step()
    with smoother.perturbed():
        pass
    smoother.step()  # warnings are errors here


def test_a_clean_share_of_two_ghost_batches_says_nothing():
    smoother = SmoothOut(torch.nn.Linear(3, 2), 0.1, clean_share=0.5)
    for blocks in (0, 2, 1):
        for _ in range(blocks):
            with smoother.perturbed():
                pass
        smoother.step()
