"""Which parameters are perturbed."""

import copy

import pytest
import torch
from torch import nn

from smoothout import SmoothOut


class CustomNorm(nn.BatchNorm1d):
    pass


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.embedding = nn.Embedding(5, 4)
        self.norms = nn.ModuleList([nn.BatchNorm1d(4), CustomNorm(4), nn.SyncBatchNorm(4), nn.LayerNorm(4)])
        self.frozen = nn.Linear(4, 4).requires_grad_(False)
        self.head = nn.Linear(4, 5, bias=False)
        self.head.weight = self.embedding.weight
        self.last = nn.Linear(5, 2)
        self.quiet_parameters = ["last.bias"]


def reasons(model, **options):
    return {t.name: t.left_out for t in SmoothOut(model, 0.1, **options).summary().tensors}


def test_the_default_selection():
    assert reasons(Net()) == {
        "embedding.weight": None,  # once, although the head is tied to it
        **{f"norms.{i}.{part}": "exclude" for i in range(3) for part in ("weight", "bias")},
        "norms.3.weight": None,
        "norms.3.bias": None,
        "frozen.weight": "frozen",
        "frozen.bias": "frozen",
        "last.weight": None,
        "last.bias": "quiet_parameters",
    }


def test_exclude_gets_name_module_and_parameter():
    seen = []

    def exclude(name, module, parameter):
        seen.append((name, type(module).__name__, tuple(parameter.shape)))
        return name.startswith("norms.3")

    left_out = reasons(Net(), exclude=exclude)
    assert ("embedding.weight", "Embedding", (5, 4)) in seen
    assert left_out["norms.3.weight"] == "exclude"
    assert left_out["norms.0.weight"] is None  # BatchNorm is in, since the default is replaced
    assert left_out["last.bias"] == "quiet_parameters"


def test_one_dimensional_parameters_can_be_skipped():
    left_out = reasons(Net(), one_dimensional="skip")
    assert left_out["norms.3.weight"] == left_out["norms.3.bias"] == "one_dimensional"
    assert left_out["last.weight"] is None


def test_named_parameters_instead_of_a_model():
    model = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2))
    left_out = reasons(model.named_parameters())
    assert set(left_out.values()) == {None}  # names alone do not tell a BatchNorm


@pytest.mark.parametrize("wrap", [lambda m: torch.compile(m, backend="eager"), nn.Sequential])
def test_wrappers_change_names_but_not_the_noise(wrap):
    plain, wrapped = Net(), wrap(Net())
    wrapped.load_state_dict(
        {k.replace("", "", 1): v for k, v in zip(wrapped.state_dict(), plain.state_dict().values(), strict=True)}
    )
    assert list(reasons(plain).values()) == list(reasons(wrapped).values())
    with SmoothOut(plain, 0.1).perturbed(), SmoothOut(wrapped, 0.1).perturbed():
        for one, other in zip(plain.parameters(), wrapped.parameters(), strict=True):
            assert torch.equal(one, other)


def test_freezing_a_layer_leaves_the_noise_of_the_others():
    one = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3))
    other = copy.deepcopy(one)
    other[0].requires_grad_(False)
    with SmoothOut(one, 0.1).perturbed(), SmoothOut(other, 0.1).perturbed():
        assert torch.equal(one[1].weight, other[1].weight)
        assert not torch.equal(one[0].weight, other[0].weight)


def test_parameters_are_followed():
    model = nn.Sequential(nn.Linear(3, 3))
    model[0].weight.requires_grad_(False)
    smoother = SmoothOut(model, 0.1)
    clean = {name: p.detach().clone() for name, p in model.named_parameters()}

    def moved():
        with smoother.perturbed():
            return {name for name, p in model.named_parameters() if not torch.equal(p, clean[name].to(p.dtype))}

    assert moved() == {"0.bias"}
    model[0].weight.requires_grad_(True)
    assert moved() == {"0.bias", "0.weight"}
    model.append(nn.Linear(3, 2))
    clean |= {name: p.detach().clone() for name, p in model.named_parameters()}
    assert moved() == {"0.bias", "0.weight", "1.bias", "1.weight"}
    model.double()
    clean = {name: p.detach().clone() for name, p in model.named_parameters()}
    assert moved() == set(clean)
    assert all(torch.equal(p, clean[name]) for name, p in model.named_parameters())
    del model[1]
    assert moved() == {"0.bias", "0.weight"}


def test_quiet_parameters_may_use_any_name_of_a_tied_one():
    model = Net()
    model.quiet_parameters = ["head.weight"]
    assert reasons(model)["embedding.weight"] == "quiet_parameters"


def test_quiet_parameters_must_exist():
    model = Net()
    model.quiet_parameters = ["last.offset"]
    with pytest.raises(ValueError, match=r"quiet_parameters of Net names 'last.offset'.*named_parameters\(\) gives"):
        SmoothOut(model, 0.1)


def test_what_cannot_be_perturbed_is_refused():
    with pytest.raises(
        TypeError, match="pairs .name, parameter., got an item of type Parameter.*model.named_parameters"
    ):
        SmoothOut(nn.Linear(2, 2).parameters(), 0.1)
    with pytest.raises(ValueError, match="'weight' has no values yet.*Run one batch through the model first"):
        SmoothOut(nn.LazyLinear(2), 0.1)
    with pytest.raises(ValueError, match="'weight' has no values yet.*on meta"):
        SmoothOut(nn.Linear(2, 2, device="meta"), 0.1)
    complex_ = nn.ParameterDict({"phase": nn.Parameter(torch.zeros(2, dtype=torch.complex64))})
    with pytest.raises(TypeError, match="'phase' is a Tensor of torch.complex64; expected a plain real tensor"):
        SmoothOut(complex_, 0.1)
    with pytest.raises(
        TypeError, match=r"expected a model or pairs .*, got a SGD. Pass the model itself: no optimizer"
    ):
        SmoothOut(torch.optim.SGD(nn.Linear(2, 2).parameters()), 0.1)
    with pytest.raises(TypeError, match=r"exclude is a list; expected a function .*For names: exclude=lambda"):
        SmoothOut(nn.Linear(2, 2), 0.1, exclude=["bias"])
    with pytest.raises(TypeError, match="nn.DataParallel.*Use DistributedDataParallel"):
        SmoothOut(nn.DataParallel(nn.Linear(2, 2)), 0.1)
