"""What a user's model carries is used, and what does not fit is told before anything is written."""

import pytest
import torch
from torch import nn
from torch.nn import functional

from smoothout.train.config import Settings
from smoothout.train.problem import pose
from smoothout.train.run import prepare

BLOBS = __file__.replace("test_problem.py", "user_code.py:blobs")
PICTURES = """
import torch
def pictures():
    generator = torch.Generator().manual_seed(0)
    def split(count):
        images = torch.randint(0, 256, (count, 3, 12, 12), dtype=torch.uint8, generator=generator)
        return images, torch.arange(count) % 4
    return {"train": split(40), "test": split(8)}
"""


@pytest.fixture
def net(tmp_path):
    """Writes a model file and returns settings for it."""

    def write(body, dataset=BLOBS, **changes):
        file = tmp_path / "net.py"
        file.write_text(f"import torch\nfrom torch import nn\nfrom torchvision import transforms\n{PICTURES}\n{body}")
        if dataset == "pictures":
            dataset = f"{file}:pictures"
        return Settings().replace(model=f"{file}:model", dataset=dataset, epochs=2, workers=0, device="cpu", **changes)

    return write


def posed(settings):
    return pose(settings, torch.device("cpu"))


LINEAR = "def model(num_classes, input_shape):\n    net = nn.Linear(*input_shape, num_classes)\n"


def test_cross_entropy_and_label_smoothing(net):
    problem = posed(net(f"{LINEAR}    return net", label_smoothing=0.1))
    logits, targets = torch.randn(5, 4), torch.tensor([0, 1, 2, 3, 0])
    assert torch.equal(problem.loss(logits, targets), functional.cross_entropy(logits, targets))
    smoothed = functional.cross_entropy(logits, targets, label_smoothing=0.1)
    assert torch.equal(problem.training_loss(logits, targets), smoothed)
    assert problem.regime is None


@pytest.mark.parametrize("criterion", ["nn.MultiMarginLoss", "nn.MultiMarginLoss()", "nn.functional.multi_margin_loss"])
def test_a_models_criterion(criterion, net):
    problem = posed(net(f"{LINEAR}    net.criterion = {criterion}\n    return net"))
    logits, targets = torch.randn(5, 4), torch.tensor([0, 1, 2, 3, 0])
    for loss in (problem.loss, problem.training_loss):
        assert torch.equal(loss(logits, targets), nn.functional.multi_margin_loss(logits, targets))


def test_a_models_regime_is_that_of_the_run(net):
    body = f"{LINEAR}    net.regime = {{0: {{'optimizer': 'Adam', 'lr': 0.5}}, 1: {{'lr': 0.25}}}}\n    return net"
    run = prepare(net(body, lr_rule="none"))
    assert type(run.optimizer.optimizer).__name__ == "Adam"
    assert [phase.lr for phase in run.plan.phases] == [0.5, 0.25]


def test_quiet_parameters_get_no_noise(net):
    run = prepare(net(f"{LINEAR}    net.quiet_parameters = ['bias']\n    return net", strength=0.1))
    assert [tensor.left_out for tensor in run.smoother.summary().tensors] == [None, "quiet_parameters"]


TRANSFORMS = """
def model(num_classes, input_shape):
    assert input_shape == (3, 12, 12)
    net = nn.Sequential(nn.Flatten(), nn.Linear(3 * 8 * 8, num_classes))
    net.input_transform = {
        "train": transforms.Compose([transforms.RandomCrop(8), transforms.ToTensor()]),
        "eval": transforms.Compose([transforms.CenterCrop(8), transforms.ToTensor()]),
    }
    return net
"""


def test_input_transform_takes_the_place_of_the_datas_own(net):
    problem = posed(net(TRANSFORMS, "pictures"))
    assert problem.dataset.input_shape == (3, 8, 8)
    inputs, _ = next(problem.dataset.test.batches([8]))
    assert inputs.dtype == torch.float32
    assert 0 <= float(inputs.min()) < float(inputs.max()) <= 1


BAD = [
    (
        f"{LINEAR}    return nn.Linear(7, num_classes)",
        {},
        "does not take a batch of shape .3, 6. and type .* from",
    ),
    (
        f"{LINEAR}    return nn.Linear(6, 3)",
        {},
        r"returns .3, 3. for 3 samples; expected logits of shape .3, 4 or more",
    ),
    (
        f"{LINEAR}    net.criterion = nn.CrossEntropyLoss(reduction='none')\n    return net",
        {},
        "returns .3,.; expected",
    ),
    (
        f"{LINEAR}    net.criterion = nn.CrossEntropyLoss\n    return net",
        {"label_smoothing": 0.1},
        "carries its own crit",
    ),
    (f"{LINEAR}    return net", {"num_classes": 3}, "num_classes is 3 and .*blobs has 4 classes; expected at least as"),
    (f"{LINEAR}    return net", {"holdout": 0.0}, "holdout is 0; training chooses its best epoch"),
    (f"{LINEAR}    net.regime = 3\n    return net", {}, "the model's regime is a int"),
]


BAD += [
    (
        f"{LINEAR}    net.criterion = nn.GaussianNLLLoss\n    return net",
        {},
        "criterion of the model .* failed: TypeError",
    ),
    (f"{LINEAR}    net.criterion = lambda: 3\n    return net", {}, "criterion of .* failed: .*Expected a function of"),
    (f"class C:\n    def __init__(self, w): pass\n{LINEAR}    net.criterion = C\n    return net", {}, "cannot be made"),
    (f"{LINEAR}    net.criterion = nn.MSELoss\n    return net", {}, "criterion of .* failed: (Runtime|UserW)"),
]


@pytest.mark.parametrize(("body", "changes", "text"), BAD)
def test_what_does_not_fit_is_told_at_once(body, changes, text, net):
    with pytest.raises((ValueError, TypeError), match=text):
        prepare(net(body, **changes))


OTHER_CROP = """
well_made = model
def model(num_classes, input_shape):
    net = well_made(num_classes, input_shape)
    net.input_transform["SPLIT"] = transforms.Compose([transforms.CenterCrop(10), transforms.ToTensor()])
    return net
"""


def test_transforms_that_do_not_fit_are_told_at_once(net):
    for split in ("train", "eval"):
        with pytest.raises(ValueError, match=r"does not take a batch of shape .[34], 3, 10, 10. and type"):
            posed(net(TRANSFORMS + OTHER_CROP.replace("SPLIT", split), "pictures"))
    body = f"{LINEAR}    net.input_transform = transforms.ToTensor()\n    return net"
    with pytest.raises(TypeError, match="input_transform is ToTensor; expected a mapping with 'train' and 'eval'"):
        posed(net(body))


def test_bytes_that_nothing_makes_floats_of(net):
    body = "def model(num_classes, input_shape):\n    return nn.Sequential(nn.Flatten(), nn.Linear(432, num_classes))"
    with pytest.raises(ValueError, match=r"and type torch.uint8 from .*:pictures: .*data of another form"):
        posed(net(body, "pictures"))


def test_more_outputs_than_classes(net):
    assert prepare(net(f"{LINEAR}    return net", num_classes=9)).network.out_features == 9


AUXILIARY = """
class Net(nn.Linear):
    def forward(self, x):
        return (super().forward(x),) * 2 if self.training else super().forward(x)
def model(num_classes, input_shape):
    return Net(*input_shape, num_classes)
"""


def test_what_only_training_shows_is_told_at_once(net):
    with pytest.raises(ValueError, match="returns a tuple for 4 samples; expected logits .*without auxiliary outputs"):
        posed(net(AUXILIARY))


def test_a_criterion_that_is_a_module_is_no_layer(net):
    weighted = "net.criterion = nn.CrossEntropyLoss(weight=torch.ones(4))"
    body = f"{LINEAR}    net = nn.Sequential(net)\n    {weighted}\n    return net"
    problem = posed(net(body))
    assert set(problem.network.state_dict()) == {"0.weight", "0.bias"}
    assert isinstance(problem.loss, nn.CrossEntropyLoss)


def test_a_single_training_sample(net):
    data = (
        "def one():\n    generator = torch.Generator().manual_seed(0)\n"
        "    split = lambda n: (torch.randn(n, 6, generator=generator), torch.zeros(n, dtype=torch.int64))\n"
        "    return {'train': split(1), 'holdout': split(2), 'test': split(2)}\n"
    )
    settings = net(f"{data}{LINEAR}    return net")
    assert posed(settings.replace(dataset=settings.network.model.replace(":model", ":one"))).outputs == 1


def test_the_trial_leaves_the_network_as_it_was(net):
    body = (
        "def model(num_classes, input_shape):\n"
        "    return nn.Sequential(nn.LazyLinear(8), nn.BatchNorm1d(8), nn.Dropout(), nn.Linear(8, num_classes))"
    )
    state = torch.get_rng_state()
    one, other = posed(net(body)).network, posed(net(body)).network
    assert torch.equal(torch.get_rng_state(), state)
    assert one.training
    assert int(one[1].num_batches_tracked) == 0
    assert torch.equal(one[0].weight, other[0].weight)


def test_noise_for_nothing_warns(net):
    from smoothout.train.description import describe

    run = prepare(net(f"{LINEAR}    net.quiet_parameters = ['weight', 'bias']\n    return net", strength=0.1))
    with pytest.warns(RuntimeWarning, match="strength is 0.1 and no weight gets noise"):
        describe(run)
