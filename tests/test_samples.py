import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from smoothout.samples import Samples, subset

CPU = torch.device("cpu")


def batches(*sizes):
    """Sample k has the inputs (k, k) and the target k."""
    numbers = torch.arange(sum(sizes))
    return [(part[:, None].float().expand(-1, 2).contiguous(), part) for part in numbers.split(list(sizes))]


def targets(found):
    return torch.cat([part for _, part in found]).tolist()


BYTES = 2 * 4 + 8  # of a sample of batches()


def test_batches_come_in_order_and_are_kept():
    data = batches(4, 4, 3)
    samples = Samples(data, CPU)
    assert samples.resident
    assert [len(part) for _, part in samples] == [4, 4, 3]
    assert targets(samples) == targets(samples) == list(range(11))
    assert [len(part) for part in samples.parts()] == [3]


def test_what_fits_is_read_once():
    reads = 0

    class Counted:
        def __iter__(self):
            nonlocal reads
            reads += 1
            return iter(batches(4, 4))

    samples = Samples(Counted(), CPU)
    assert targets(samples) == targets(samples) == list(range(8))
    assert reads == 1


@given(st.lists(st.integers(1, 6), min_size=1, max_size=8), st.integers(0, 20))
def test_what_does_not_fit_comes_in_parts_that_do(sizes, room):
    samples = Samples(batches(*sizes), CPU, room=room * BYTES)
    assert samples.resident == (sum(sizes) <= room or len(sizes) == 1)
    seen = []
    for part in samples.parts():
        assert len(part) == 1 or sum(len(numbers) for _, numbers in part) <= room
        seen += targets(part)
    assert seen == targets(samples) == list(range(sum(sizes)))


def test_only_one_part_is_held_at_a_time():
    # The reader's loop still names the last part while the next is read.
    samples = Samples(batches(2, 2, 2, 2), CPU, room=4 * BYTES)
    parts = samples.parts()
    first = next(parts)
    assert len(first) == 2
    next(parts)
    assert first == []


def test_empty_batches_are_left_out():
    samples = Samples([*batches(3), (torch.zeros(0, 2), torch.zeros(0, dtype=torch.long))], CPU)
    assert [len(part) for _, part in samples] == [3]


def test_tensors_that_carry_gradients_are_detached():
    [(inputs, _)] = Samples([(torch.zeros(3, 2, requires_grad=True), torch.zeros(3))], CPU)
    assert not inputs.requires_grad


def test_a_generator_that_fits_may_be_used():
    samples = Samples((each for each in batches(4, 4)), CPU)
    assert targets(samples) == targets(samples) == list(range(8))


def test_a_generator_that_does_not_fit_is_refused():
    with pytest.raises(
        ValueError, match="the data are a one-time generator and do not fit in 64 bytes; expected someth"
    ):
        Samples((each for each in batches(4, 4)), CPU, room=4 * BYTES)


@pytest.mark.parametrize("data", [[], iter([]), [(torch.zeros(0, 2), torch.zeros(0))]])
def test_no_samples(data):
    with pytest.raises(ValueError, match=r"there are no samples to measure on; expected at least one batch"):
        Samples(data, CPU)


@pytest.mark.parametrize("bad", [torch.zeros(3, 2), (torch.zeros(3),), (torch.zeros(3), [0, 1, 2]), {"x": 1}])
def test_batches_that_are_no_pairs(bad):
    with pytest.raises(TypeError, match=r"a batch is a \w+; expected a pair of tensors \(inputs, targets\)"):
        Samples([bad], CPU)


@pytest.mark.parametrize("labels", [torch.zeros(4), torch.tensor(1.0)])
def test_batches_with_another_number_of_targets(labels):
    with pytest.raises(ValueError, match=r"a batch has inputs \(3, 2\) and targets .*; expected as many"):
        Samples([(torch.zeros(3, 2), labels)], CPU)


# -- subset -----------------------------------------------------------------------------------------------------------


@given(
    st.lists(st.integers(1, 40), min_size=1, max_size=6),
    st.lists(st.integers(1, 40), min_size=1, max_size=6),
    st.integers(1, 60),
    st.integers(0, 3),
)
def test_a_choice_does_not_depend_on_the_batches(one, other, count, seed):
    total = min(sum(one), sum(other))

    def cut(sizes):
        inputs, numbers = (torch.cat(each)[:total] for each in zip(*batches(*sizes), strict=True))
        return list(zip(inputs.split(sizes[0]), numbers.split(sizes[0]), strict=True))

    found = [targets(subset(cut(sizes), count, seed)) for sizes in (one, other)]
    assert found[0] == found[1]
    assert len(found[0]) == len(set(found[0])) == min(count, total)
    assert found[0] == sorted(found[0])


def test_a_choice_is_uniform():
    counts = torch.zeros(12)
    for seed in range(1200):
        counts[targets(subset(batches(5, 5, 2), 3, seed))] += 1
    # 300 each, with the variance 300 * 3/4; as they add up to 3600, their squares have 12/11 of it in 11 directions.
    chi_square = float((counts - 300).square().sum()) / (300 * 0.75) * 11 / 12
    assert chi_square < 31.3  # exceeded once in a thousand by chi^2 of 11 degrees of freedom


def test_pairs_are_chosen_together():
    data = batches(2, 3, 2)
    pairs = [each for inputs, numbers in data for each in zip(inputs[:, 0].tolist(), numbers.tolist(), strict=True)]
    together = 0
    for seed in range(2100):
        together += targets(subset(data, 2, seed)) == [0, 6]
    assert abs(together - 100) < 4 * 10  # one of 21 pairs
    assert all(x == y for x, y in pairs)


def test_inputs_stay_with_their_targets():
    for inputs, numbers in subset(batches(5, 5, 5), 7, seed=3, batch_size=4):
        assert torch.equal(inputs[:, 0], numbers.float())


def test_batches_of_a_choice():
    assert [len(part) for _, part in subset(batches(20), 11, batch_size=4)] == [4, 4, 3]


def test_more_than_there_are_gives_all_in_order():
    assert targets(subset(batches(3, 4), 100)) == list(range(7))


def test_seeds_make_the_choice():
    one, again, other = (targets(subset(batches(50), 5, seed)) for seed in (1, 1, 2))
    assert one == again != other


def test_the_global_generator_is_not_touched():
    before = torch.get_rng_state()
    subset(batches(50), 5)
    assert torch.equal(torch.get_rng_state(), before)


def test_a_choice_of_nothing_is_no_batch():
    assert subset([], 5) == []


@pytest.mark.parametrize("options, text", [({"samples": 0}, "samples is 0"), ({"batch_size": 0}, "batch_size is 0")])
def test_choices_that_make_no_sense(options, text):
    with pytest.raises(ValueError, match=f"{text}; expected a whole number >= 1"):
        subset(batches(5), **{"samples": 3, **options})
