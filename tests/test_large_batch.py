from collections import namedtuple

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.nn import functional

from smoothout import ghost_batches
from smoothout.large_batch import learning_rate_factor, partition


@given(st.integers(1, 5000), st.integers(2, 600))
def test_partition(samples, size):
    pieces = partition(samples, size)
    assert sum(pieces) == samples
    assert all(piece == size for piece in pieces[:-1])
    assert pieces[-1] <= size + 1
    assert 1 not in pieces or samples == 1


def test_partition_of_the_originals_awkward_batches():
    assert partition(848, 128) == [128] * 6 + [80]
    assert partition(1000, 128) == [128] * 7 + [104]
    assert partition(100, 128) == [100]
    assert partition(1025, 128) == [128] * 7 + [129]
    assert partition(3, 1) == [1, 1, 1]
    assert partition(0, 4) == []


@pytest.mark.parametrize(("samples", "size"), [(-1, 4), (4, 0)])
def test_impossible_partitions(samples, size):
    with pytest.raises(ValueError, match="expected a whole number"):
        partition(samples, size)


Pair = namedtuple("Pair", "left right")


def test_structures_are_kept():
    x = torch.arange(10)
    batch = {"ids": x, "parts": (x + 1, [x + 2]), "pair": Pair(x + 3, x + 4)}
    pieces = list(ghost_batches(batch, size=4))
    assert [len(piece["ids"]) for piece in pieces] == [4, 4, 2]
    assert isinstance(pieces[0]["pair"], Pair)
    assert isinstance(pieces[0]["parts"], tuple)
    assert isinstance(pieces[0]["parts"][1], list)
    assert torch.equal(torch.cat([piece["parts"][1][0] for piece in pieces]), x + 2)
    assert torch.equal(torch.cat([piece["pair"].right for piece in pieces]), x + 4)


def test_one_thing_comes_alone_and_several_as_a_tuple():
    x = torch.arange(5)
    assert isinstance(next(ghost_batches(x, size=2)), torch.Tensor)
    first = next(ghost_batches(x, {"y": x}, size=2))
    assert isinstance(first, tuple)
    assert list(first[1]) == ["y"]


def test_weighted_by_samples_the_gradients_add_up():
    x, y = torch.randn(11, 3, dtype=torch.float64), torch.randint(0, 2, (11,))
    w = torch.randn(3, 2, dtype=torch.float64, requires_grad=True)
    [whole] = torch.autograd.grad(functional.cross_entropy(x @ w, y), w)
    parts = [
        torch.autograd.grad(functional.cross_entropy(a @ w, b) * (len(a) / len(x)), w)[0]
        for a, b in ghost_batches(x, y, size=4)
    ]
    torch.testing.assert_close(sum(parts), whole)


def test_a_sequence_loss_is_weighted_by_tokens():
    x, y = torch.randn(7, 5, 3, dtype=torch.float64), torch.randint(0, 2, (7, 5))
    y[torch.rand(7, 5) < 0.4] = -100  # padding, which cross_entropy leaves out of its mean
    w = torch.randn(3, 2, dtype=torch.float64, requires_grad=True)
    [whole] = torch.autograd.grad(functional.cross_entropy((x @ w).flatten(0, 1), y.flatten()), w)
    tokens = (y != -100).sum()
    parts = []
    for a, b in ghost_batches(x, y, size=3):
        loss = functional.cross_entropy((a @ w).flatten(0, 1), b.flatten())
        parts.append(torch.autograd.grad(loss * ((b != -100).sum() / tokens), w)[0])
    torch.testing.assert_close(sum(parts), whole)


@pytest.mark.parametrize(
    ("batch", "error", "text"),
    [
        ((torch.zeros(3), torch.zeros(4)), ValueError, r"have \[3, 4\] samples; expected one equal number"),
        ((torch.zeros(0),), ValueError, r"have \[0\] samples"),
        (({},), ValueError, r"have \[\] samples"),
        ((torch.tensor(1.0),), ValueError, "a 0-D tensor; expected samples along dimension 0"),
        (
            (torch.zeros(2), ["a", "b"]),
            TypeError,
            "holds a str; expected tensors.*Take what is not per sample out",
        ),
    ],
)
def test_what_cannot_be_cut(batch, error, text):
    with pytest.raises(error, match=text):
        list(ghost_batches(*batch, size=2))


def test_learning_rate_rules():
    assert learning_rate_factor("sqrt", 2048, 128) == 4
    assert learning_rate_factor("linear", 2048, 128) == 16
    assert learning_rate_factor("none", 2048, 128) == 1
    with pytest.raises(ValueError, match="lr_rule is 'cube'; expected one of 'sqrt', 'linear', 'none'"):
        learning_rate_factor("cube", 2, 1)
