"""Noise drawn anew within one block is, bit for bit, that of a block for each item."""

import gc

import pytest
import torch
from torch import nn
from torch.nn import functional

from smoothout import AutoStrength, MomentumSAM, SmoothOut, ghost_batches

LAYOUTS = {
    "row-major": lambda t: t,
    "channels_last": lambda t: t.to(memory_format=torch.channels_last),
    "transposed": lambda t: t.flatten(1).t(),
}


def network():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(6, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 3))


def bits(model):
    return [bytes(p.detach().contiguous().view(-1).view(torch.uint8).tolist()) for p in model.parameters()]


def seen_by_blocks(smoother, model, count, **options):
    """What each item sees in a block of its own."""
    start, found = options.pop("stream", None), []
    for index in range(count):
        with smoother.perturbed(None if start is None else start + index, **options):
            found.append(bits(model))
    return found


def seen_by_each(smoother, model, count, **options):
    with smoother.perturbed(**options) as noise:
        return [bits(model) for _ in noise.each(range(count))]


def visit(smoother, count, act=lambda index: None):
    """Do something at each item."""
    with smoother.perturbed() as noise:
        for index in noise.each(range(count)):
            act(index)


def both(make, model, count=4, **options):
    """The same from one block as from many, and both leave the same weights and counts behind."""
    found = []
    start = [p.detach().clone() for p in model.parameters()]
    for way in (seen_by_blocks, seen_by_each):
        smoother = make(model)
        found.append(way(smoother, model, count, **options))
        found[-1].append(bits(model))
        found[-1].append((smoother._streams, smoother._blocks, smoother._last_stream))
        with torch.no_grad():
            for p, clean in zip(model.parameters(), start, strict=True):
                p.copy_(clean)
    assert found[0] == found[1]
    return found[0]


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("distribution", ["uniform", "normal"])
@pytest.mark.parametrize("scale", ["none", "weight", "filter"])
def test_each_item_sees_what_a_block_of_its_own_shows(scale, distribution, dtype, layout):
    values = LAYOUTS[layout](torch.randn(40, 7, 3, 3)).to(dtype)
    model = nn.ParameterList([nn.Parameter(values), nn.Parameter(torch.randn(5)), nn.Parameter(torch.randn(3, 300))])
    before = bits(model)
    seen = both(lambda m: SmoothOut(m, 0.3, scale=scale, distribution=distribution, seed=7), model)
    assert seen[4] == before
    assert len({repr(each) for each in seen[:5]}) == 5  # no two are equal, and none is clean


@pytest.mark.parametrize(
    "options",
    [
        {"clean_share": 0.5},
        {"clean_share": 0.3},
        {"denoise": False},
        {"denoise": False, "clean_share": 0.5},
        {"strength": "auto"},
        {"strength": "auto", "clean_share": 0.4},
        {"strength": 0.0},
        {"start_step": 1},
    ],
    ids=str,
)
def test_every_kind_of_smoother(options, backend):
    both(lambda m: SmoothOut(m, **{"strength": 0.3} | options), network(), count=6)


@pytest.mark.parametrize("options", [{"stream": 5}, {"draw": 3}, {"stream": 2, "draw": 1, "antithetic": True}], ids=str)
def test_a_block_that_was_given_its_noise_goes_on_from_there(options, backend):
    both(lambda m: SmoothOut(m, 0.3), network(), **options)


def test_clean_streams_see_the_clean_weights(backend):
    model = network()
    before = bits(model)
    seen = both(lambda m: SmoothOut(m, 0.3, clean_share=0.5), model, count=5)
    assert [each == before for each in seen[:5]] == [True, False, True, False, True]


def updates(way, **options):
    """Three updates of two loaded batches each, in ghost batches; weights, losses and strength at the end."""
    model = network()
    smoother = SmoothOut(model, **{"strength": 0.1, "seed": 3} | options)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    generator, losses = torch.Generator().manual_seed(1), []

    def learn(x, y):
        loss = functional.cross_entropy(model(x), y)
        (loss * (len(x) / 20)).backward()
        smoother.observe(loss)
        losses.append(loss.item())

    for _ in range(3):
        for _ in range(2):
            batch = torch.randn(10, 6, generator=generator), torch.randint(0, 3, (10,), generator=generator)
            way(smoother, ghost_batches(*batch, size=4), learn)
        optimizer.step()
        optimizer.zero_grad()
        smoother.step()
    return (
        bits(model),
        [bytes(b.double().view(-1).view(torch.uint8).tolist()) for b in model.buffers()],
        losses,
        (
            smoother.strength,
            smoother.updates,
        ),
    )


def by_blocks(smoother, pieces, learn):
    for piece in pieces:
        with smoother.perturbed():
            learn(*piece)


def by_each(smoother, pieces, learn):
    with smoother.perturbed() as noise:
        for piece in noise.each(pieces):
            learn(*piece)


@pytest.mark.parametrize(
    "options", [{}, {"strength": AutoStrength(start=0.1)}, {"clean_share": 0.5}, {"denoise": False}], ids=str
)
def test_training_over_several_loaded_batches(options, backend):
    assert updates(by_blocks, **options) == updates(by_each, **options)


def test_momentum_sam_stays_where_it_is_while_nothing_that_it_follows_changes():
    model = network()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    model(torch.randn(4, 6)).square().sum().backward()
    optimizer.step()
    both(lambda m: MomentumSAM(m, optimizer, 0.3), model)
    sam, before = MomentumSAM(model, optimizer, 0.3), bits(model)
    with sam.perturbed() as displaced:
        versions, seen = [], []
        for index in displaced.each(range(4)):
            versions.append(sam._versions())
            seen.append(bits(model))
            sam.rho = 0.1 if index else 0.3
        assert versions[0] == versions[1] != versions[2] == versions[3]
        assert seen[0] != seen[2]
    assert bits(model) == before
    with sam.perturbed():
        assert bits(model) == seen[2]


# -- the loop ------------------------------------------------------------------------------------------------


def test_copies_of_an_item_have_draws_of_their_own(backend):
    model = network()
    smoother = SmoothOut(model, 0.3)
    expected = []
    for stream in (4, 5):
        for draw in (1, 2, 3):
            with smoother.perturbed(stream, draw):
                expected.append((stream, bits(model)))
    with smoother.perturbed(4, 1) as noise:
        assert [(item, bits(model)) for item in noise.each([4, 5], copies=3)] == expected
    with smoother.perturbed() as noise:
        assert list(noise.each("ab", copies=2)) == ["a", "a", "b", "b"]
    assert smoother._streams == 2


def test_no_items():
    model = network()
    smoother, before = SmoothOut(model, 0.3), bits(model)
    with smoother.perturbed() as noise:
        assert list(noise.each([])) == []
    assert bits(model) == before
    assert smoother._streams == 1  # as a block without each


def test_twice_in_a_block_goes_on_with_the_next_stream(backend):
    model = network()
    expected = seen_by_blocks(SmoothOut(model, 0.3), model, 4)
    with SmoothOut(model, 0.3).perturbed() as noise:
        found = [bits(model) for count in (2, 0, 2) for _ in noise.each(range(count))]
    assert found == expected


def test_blocks_before_and_after_go_on_counting():
    model = network()
    expected = seen_by_blocks(SmoothOut(model, 0.3), model, 5)
    smoother = SmoothOut(model, 0.3)
    found = seen_by_blocks(smoother, model, 1) + seen_by_each(smoother, model, 3) + seen_by_blocks(smoother, model, 1)
    assert found == expected


def test_leaving_the_loop_early(backend):
    model = network()
    smoother, before = SmoothOut(model, 0.3), bits(model)
    with smoother.perturbed() as noise:
        for index in noise.each(range(5)):
            if index == 2:
                break
    assert bits(model) == before
    assert smoother._streams == 3
    with pytest.raises(ZeroDivisionError):
        visit(smoother, 5, lambda index: 1 / (1 - index))
    assert bits(model) == before
    smoother.step()


def test_items_that_fail(backend):
    model = network()
    smoother, before = SmoothOut(model, 0.3), bits(model)
    with pytest.raises(ValueError, match="the batch is empty"), smoother.perturbed() as noise:
        for _ in noise.each(item if item else _fail() for item in (1, 2, 0)):
            pass
    assert bits(model) == before
    smoother.step()


def _fail():
    raise ValueError("the batch is empty")


def test_a_strength_set_in_the_loop_is_that_of_the_next_item(backend):
    model = network()
    found = []
    for way in (by_blocks, by_each):
        smoother, seen = SmoothOut(model, 0.3), []

        def learn(strength, smoother=smoother, seen=seen):
            seen.append(bits(model))
            smoother.strength = strength

        way(smoother, [(0.1,), (0.0,), (0.2,), (0.2,)], learn)
        found.append(seen)
    assert found[0] == found[1]
    assert found[0][2] == bits(model)


def test_a_schedule_that_fails_in_the_loop():
    model = network()
    factors = iter([1.0, float("nan")])  # asked once for each strength
    smoother, before = SmoothOut(model, 0.3, schedule=lambda _: next(factors)), bits(model)

    def learn():
        with smoother.perturbed() as noise:
            for _ in noise.each(range(9)):
                smoother.strength = 0.4

    with pytest.raises(ValueError, match="schedule 'custom' gives at step 0 is nan"):
        learn()
    assert bits(model) == before


# -- what is refused -----------------------------------------------------------------------------------------


def test_outside_of_its_block():
    model = network()
    smoother = SmoothOut(model, 0.3)
    block = smoother.perturbed()
    text = (
        r"each\(\) of the perturbed\(\) block made at .*test_each.py:\d+, which is not open; expected to be inside it"
    )
    with pytest.raises(RuntimeError, match=text):
        block.each([1])
    with block as noise:
        items = noise.each(range(3))
        next(items)
    before = bits(model)
    with pytest.raises(RuntimeError, match="Write `with smoother.perturbed\\(\\) as noise:`"):
        next(items)
    assert bits(model) == before
    with smoother.perturbed(), pytest.raises(RuntimeError, match="is not open"):
        next(block.each([1]))


@pytest.mark.parametrize("copies", [0, -1])
def test_impossible_copies(copies):
    with (
        SmoothOut(network(), 0.3).perturbed() as noise,
        pytest.raises(ValueError, match=f"copies is {copies}; expected a whole number >= 1"),
    ):
        noise.each([1], copies=copies)


def test_the_last_stream_has_no_next():
    model = network()
    before = bits(model)
    with (
        pytest.raises(ValueError, match="stream is 4294967296; expected a whole number >= 0 and < 4294967296"),
        SmoothOut(model, 0.3).perturbed(stream=2**32 - 1) as noise,
    ):
        list(noise.each([1, 2]))
    assert bits(model) == before
    with SmoothOut(model, 0.3).perturbed(draw=2**32 - 1) as noise:
        assert list(noise.each([1])) == [1]
        with pytest.raises(ValueError, match="copies is 2"):
            noise.each([1], copies=2)


@pytest.mark.parametrize("written_at", [0, 1, 2])
def test_weights_written_in_the_loop_are_told_by_name(written_at, backend):
    model = network()
    smoother, before, reached = SmoothOut(model, 0.3), bits(model), []

    def write(index):
        reached.append(index)
        if index == written_at:
            nn.init.zeros_(model[3].weight)

    with pytest.raises(RuntimeError, match=r"'3.weight' was written inside the block opened at .*test_each.py"):
        visit(smoother, 3, write)
    assert reached == list(range(written_at + 1))
    assert bits(model) == before
    smoother.step()


def test_weights_written_before_a_clean_stream_are_told_too(backend):
    model = network()
    before = bits(model)
    smoother = SmoothOut(model, 0.3, clean_share=0.5)
    with pytest.raises(RuntimeError, match="'0.bias' was written"):
        visit(smoother, 3, lambda index: nn.init.zeros_(model[0].bias) if index == 1 else None)
    assert bits(model) == before


def test_an_optimizer_must_not_step_in_the_loop():
    model = network()
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    with SmoothOut(model, 0.3).perturbed() as noise:
        for _ in noise.each(range(2)):
            with pytest.raises(RuntimeError, match=r"SGD.step\(\) inside the perturbed\(\) block"):
                optimizer.step()


def test_a_backward_pass_after_its_item_raises(backend):
    model, kept = network(), []
    with SmoothOut(model, 0.3).perturbed() as noise:
        for index in noise.each(range(2)):
            if index == 0:
                kept.append(model(torch.randn(4, 6)).square().sum())
            else:
                with pytest.raises(RuntimeError, match="modified by an inplace operation"):
                    kept[0].backward()


def test_autocast_opened_outside_sees_each_item_s_weights(backend):
    model, x = network().eval(), torch.randn(4, 6)
    outputs = []
    for outside in (True, False):
        with torch.autocast("cpu", torch.bfloat16, enabled=outside), SmoothOut(model, 0.3).perturbed() as noise:
            for _ in noise.each(range(3)):
                with torch.autocast("cpu", torch.bfloat16):
                    outputs.append(model(x).detach())
    assert all(map(torch.equal, outputs[:3], outputs[3:]))
    assert not torch.equal(outputs[0], outputs[1])


# -- weights that go elsewhere -------------------------------------------------------------------------------


def test_a_parameter_replaced_in_the_loop_is_told_at_the_end(backend):
    model = network()
    old, before = model[0].weight, bits(model)

    def replace(index):
        if index == 0:
            model[0].weight = nn.Parameter(old.detach().clone())

    with pytest.raises(RuntimeError, match="added, replaced, moved or frozen inside the block"):
        visit(SmoothOut(model, 0.3), 3, replace)
    model[0].weight = old
    assert bits(model) == before


def test_data_in_other_memory_get_the_next_noise_where_they_are(backend):
    found = []
    for way in (by_blocks, by_each):
        model, seen = network(), []
        smoother, old = SmoothOut(model, 0.3), model[0].weight.data
        kept = old.clone()

        def learn(index, model=model, seen=seen):
            seen.append(bits(model))
            if index == 1:
                model[0].weight.data = model[0].weight.data.clone()

        way(smoother, [(index,) for index in range(4)], learn)
        seen.append(bits(model))
        found.append(seen)
        assert way is by_blocks or not torch.equal(old, kept)  # nobody wrote to it any more
    assert found[0] == found[1]


def test_memory_that_a_weight_has_left_is_not_written(backend):
    model = network()
    with SmoothOut(model, 0.3).perturbed() as noise:
        for index in noise.each(range(5)):
            if index == 1:
                model[0].weight.data = model[0].weight.data.clone()
                gc.collect()
                room = torch.full((8, 6), 7.0)  # may get the memory that was left
    assert bool((room == 7).all())


def test_a_weight_of_another_shape_in_the_loop_does_not_keep_the_others_from_coming_back():
    model = network()
    before = bits(model)

    def reshape(_index):
        model[0].weight.data = torch.zeros(2, 2)

    with pytest.raises(RuntimeError, match="size"):
        visit(SmoothOut(model, 0.3), 3, reshape)
    assert bits(model)[1:] == before[1:]


def test_addresses_stay():
    model = network()
    places = [p.data_ptr() for p in model.parameters()]
    with SmoothOut(model, 0.3).perturbed() as noise:
        for _ in noise.each(range(3)):
            assert [p.data_ptr() for p in model.parameters()] == places


def test_two_smoothers_take_turns():
    one, other = network(), network()
    expected = seen_by_blocks(SmoothOut(one, 0.3), one, 3)
    with SmoothOut(one, 0.3).perturbed() as first, SmoothOut(other, 0.3).perturbed() as second:
        for index, _ in zip(first.each(range(3)), second.each(range(3)), strict=True):
            assert bits(one) == bits(other) == expected[index]
    smoother, inner = SmoothOut(one, 0.3), SmoothOut(one, 0.2)
    before = bits(one)
    with pytest.raises(RuntimeError, match="'0.weight' was written"):  # by the other, in the first one's loop
        visit(smoother, 2, lambda _: visit(inner, 1))
    assert bits(one) == before


def test_no_false_alarm_of_a_forgotten_step():
    model = network()
    smoother = SmoothOut(model, 0.3, clean_share=0.5)
    for count in (1, 2, 3, 2):  # ends clean, noisy, clean, noisy; warnings are errors here
        seen_by_each(smoother, model, count)


def test_a_forgotten_step_warns():
    model = network()
    smoother = SmoothOut(model, 0.3)
    seen_by_each(smoother, model, 2)
    nn.init.zeros_(model[0].weight)
    with pytest.warns(RuntimeWarning, match=r"smoother.step\(\) was not called"):
        seen_by_each(smoother, model, 2)
