import math

import pytest
import torch
from torch import nn
from torch.nn import functional

from smoothout import SmoothOut
from smoothout.intervals import mean_interval, standard_error
from smoothout.risk import risk


def test_unequal_batches_are_weighted_by_their_size():
    model = nn.Sequential(nn.Linear(4, 8), nn.Dropout(0.5), nn.BatchNorm1d(8))
    model.train()
    model[1].eval()
    x, y = torch.randn(23, 4), torch.randint(0, 8, (23,))
    found = risk(model, [(x[:20], y[:20]), (x[20:], y[20:])])
    assert model.training
    assert not model[1].training
    assert model[2].num_batches_tracked == 0
    logits = model.eval()(x).detach()
    assert found.loss == pytest.approx(float(functional.cross_entropy(logits, y)), rel=1e-6)
    assert found.error1 == pytest.approx(100 * float((logits.argmax(1) != y).double().mean()))
    outside = [int(y[i]) not in logits[i].topk(5).indices.tolist() for i in range(23)]
    assert found.error5 == pytest.approx(100 * sum(outside) / 23)
    assert found.samples == 23


def test_fewer_than_five_classes():
    found = risk(nn.Linear(2, 3), [(torch.randn(6, 2), torch.randint(0, 3, (6,)))])
    assert found.error5 == 0


def test_each_batch_in_its_scope():
    model = nn.Linear(2, 3)
    smoother = SmoothOut(model, 0.5)
    x, y = torch.randn(6, 2), torch.randint(0, 3, (6,))
    noisy = risk(model, [(x[:3], y[:3]), (x[3:], y[3:])], scope=smoother.perturbed)
    by_hand = 0.0
    for stream in range(2):
        with smoother.perturbed(stream):
            part = slice(3 * stream, 3 * stream + 3)
            by_hand += functional.cross_entropy(model(x[part]), y[part], reduction="sum").item()
    assert noisy.loss == pytest.approx(by_hand / 6, rel=1e-6)


def test_no_samples():
    with pytest.raises(ValueError, match="no samples to evaluate; expected at least one batch"):
        risk(nn.Linear(2, 2), [])


def test_the_mode_comes_back_after_an_error():
    model = nn.Linear(2, 2).train()
    with pytest.raises(RuntimeError, match="shapes"):
        risk(model, [(torch.zeros(1, 5), torch.zeros(1, dtype=torch.long))])
    assert model.training


def test_intervals():
    # Student's t of 4 degrees of freedom at .975 is 2.7764.
    estimate = mean_interval([1.0, 2.0, 3.0, 4.0, 5.0])
    assert estimate.mean == 3
    assert estimate.half_width == pytest.approx(2.7764 * math.sqrt(2.5 / 5), rel=1e-4)
    assert estimate.certain
    assert not mean_interval([-1.0, 1.0, 2.0]).certain
    assert not mean_interval([0.28, 0.28]).certain  # two that agree, perhaps by chance
    assert standard_error([1.0, 3.0]) == 1


def test_one_value_has_no_interval():
    estimate = mean_interval([2.0])
    assert math.isnan(estimate.half_width)
    assert not estimate.certain
    assert math.isnan(mean_interval([]).mean)
    assert (str(estimate), str(mean_interval([]))) == ("2.00", "-")


def test_intervals_cover_as_often_as_they_say():
    values = torch.randn(2000, 5, dtype=torch.float64).tolist()
    covered = sum(abs(e.mean) <= e.half_width for e in map(mean_interval, values))
    assert abs(covered / 2000 - 0.95) < 4 * math.sqrt(0.95 * 0.05 / 2000)
