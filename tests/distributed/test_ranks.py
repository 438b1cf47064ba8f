import re

import pytest
import torch
from four_processes import Failed

from smoothout.ranks import ALONE, ranks_of


def test_alone():
    assert ranks_of() is ALONE
    assert ALONE.first
    assert (ALONE.own("abc"), ALONE.all(3), ALONE.from_first(3)) == ("abc", [3], 3)
    assert ALONE.sum(torch.ones(2)).tolist() == [1, 1]


def talk(group):
    ranks = ranks_of(group)
    summed = ranks.sum(torch.tensor([0.1, 1.0]) * (ranks.rank + 1))
    return ranks.first, ranks.own(list(range(10))), ranks.all(ranks.rank), ranks.from_first(ranks.rank + 7), summed


@pytest.mark.parametrize("size", [1, 2, 3, 4])
def test_together(processes, size):
    found = processes(talk, size=size)
    assert [first for first, *_ in found] == [True, *[False] * (size - 1)]
    assert sorted(item for _, own, *_ in found for item in own) == list(range(10))
    for _, own, everyone, told, summed in found:
        assert everyone == list(range(size))
        assert told == 7
        assert torch.equal(summed, found[0][-1])
        assert own[0] in range(size)
    assert found[0][-1].tolist() == pytest.approx([0.1 * size * (size + 1) / 2, size * (size + 1) / 2])


def fail(group):
    if ranks_of(group).rank == 1:
        raise RuntimeError("from process 1")
    ranks_of(group).sum(torch.ones(1))


def outsider(group):
    from torch import distributed as dist

    pair = dist.new_group([0, 1])  # as of all processes
    if dist.get_rank() != 2:
        return ""
    with pytest.raises(ValueError, match="process group") as error:
        ranks_of(pair)
    return str(error.value)


def test_errors(processes):
    with pytest.raises(Failed, match=r"(?s)process 1:.*from process 1"):
        processes(fail, size=2)
    assert re.match(r"process 2 is not in the process group", processes(outsider, size=4)[2])
