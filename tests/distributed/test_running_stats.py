"""Partial sums of running statistics against BatchNorm called in order."""

import copy

import pytest
import torch
from torch import nn

from smoothout import convert_ghost_batchnorm
from smoothout.ranks import ALONE, Ranks, ranks_of
from smoothout.running_stats import PartialRunningStats, frozen_running_stats


def norms():
    torch.manual_seed(3)
    made = nn.Sequential(
        nn.BatchNorm1d(3), nn.BatchNorm1d(3, momentum=None), nn.BatchNorm1d(3, momentum=0.6), nn.Linear(3, 3)
    ).double()
    made(torch.randn(5, 3, dtype=torch.float64))  # statistics to begin with
    return made


def pieces(count):
    generator = torch.Generator().manual_seed(count)
    return [torch.randn(4 + k % 3, 3, dtype=torch.float64, generator=generator) * (k + 1) for k in range(count)]


def partial_update(group, count, updates):
    model, ranks = norms(), ranks_of(group)
    for _ in range(updates):
        with PartialRunningStats(model, ranks) as stats:
            done = 0
            for index, piece in list(enumerate(pieces(count)))[ranks.rank :: ranks.size]:
                stats.skip(index - done)
                done = index + 1
                model(piece)
            stats.skip(count - done)
            stats.refuse_other_calls(len(range(ranks.rank, count, ranks.size)))
    return model.state_dict()


@pytest.mark.parametrize(("count", "size"), [(7, 2), (7, 3), (2, 4), (1, 3), (4, 4)])
def test_the_sum_is_the_sequential_result(processes, count, size):
    model = norms()
    for _ in range(3):
        for piece in pieces(count):
            model(piece)
    found = processes(partial_update, count, 3, size=size)
    for name, expected in model.state_dict().items():
        for state in found:
            assert torch.equal(state[name], found[0][name])
        torch.testing.assert_close(found[0][name], expected, rtol=1e-14, atol=1e-14)


def test_several_calls_of_a_ghost_norm():
    """A pass over a whole batch lets several ghost batches in."""
    model = convert_ghost_batchnorm(nn.Sequential(nn.BatchNorm1d(3), nn.BatchNorm1d(3, momentum=None)).double(), 2)
    apart, batches = copy.deepcopy(model), [torch.randn(6, 3, dtype=torch.float64) for _ in range(3)]
    for batch in batches:
        model(batch)
    parts = []
    for rank in range(3):
        part = copy.deepcopy(apart)
        with PartialRunningStats(part, Ranks(None, rank, 1)) as stats:
            stats.skip(3 * rank)
            part(batches[rank])
            stats.skip(3 * (2 - rank))
            stats.refuse_other_calls(3)
        parts.append(dict(part.named_buffers()))
    for name, expected in model.named_buffers():
        total = parts[0][name] if "tracked" in name else sum(part[name] for part in parts)
        torch.testing.assert_close(total, expected, rtol=1e-14, atol=1e-14)


def test_after_an_exception_all_is_what_it_was():
    model = norms()
    before = copy.deepcopy(model.state_dict())

    def interrupted():
        with PartialRunningStats(model, Ranks(None, 1, 1)) as stats:
            stats.skip(2)
            model(pieces(1)[0])
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_what_takes_no_part():
    model = norms()
    model[0].eval()
    before = copy.deepcopy(model.state_dict())
    with frozen_running_stats(model[1]), PartialRunningStats(model, ALONE) as stats:
        stats.skip(3)
    after = model.state_dict()
    assert {name for name in before if not torch.equal(before[name], after[name])} == {
        "2.running_mean",
        "2.running_var",
        "2.num_batches_tracked",
    }


def test_calls_that_are_not_one_a_ghost_batch():
    model = norms()
    with PartialRunningStats(model, ALONE) as stats:
        model(pieces(1)[0])
        model[1](pieces(1)[0])
        with pytest.raises(RuntimeError, match="BatchNorm '1' was called 2 times for 1 ghost batches; expected once"):
            stats.refuse_other_calls(1)
