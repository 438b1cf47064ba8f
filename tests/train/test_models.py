import math

import pytest
import torch
from torch import nn

from smoothout.train import models
from smoothout.train.models.resnet import CifarResNet

# Numbers of weights, from the original program and the papers.
COUNTS = [
    ("mlp", (40,), 10, 91_810),
    ("conv1d", (40,), 10, None),
    ("mnist_f1", (1, 28, 28), 10, 1_462_794),
    ("cifar10_shallow", (3, 32, 32), 10, 1_388_490),
    ("resnet", (3, 32, 32), 10, 661_338),
    ("resnet", (3, 64, 64), 200, None),
    ("resnet", (3, 224, 224), 1000, 11_689_512),
    ("torchvision:squeezenet1_1", (3, 64, 64), 7, None),
]


@pytest.mark.parametrize(("name", "shape", "classes", "count"), COUNTS)
def test_sizes_and_outputs(name, shape, classes, count):
    model = models.build(name, shape, classes, seed=0)
    if count is not None:
        assert sum(p.numel() for p in model.parameters()) == count
    assert model.eval()(torch.zeros(2, *shape)).shape == (2, classes)


def test_names_of_the_original():
    assert "layers.15.weight" in models.build("mnist_f1", (784,), 10, 0).state_dict()
    shallow = models.build("cifar10_shallow", (3, 32, 32), 10, 0).state_dict()
    assert {"features.0.weight", "features.4.weight", "classifier.8.bias"} <= shallow.keys()
    resnet = models.build("resnet", (3, 32, 32), 10, 0).state_dict()
    assert {
        "conv1.weight",
        "bn1.weight",
        "layer2.0.downsample.0.weight",
        "layer3.6.conv2.weight",
        "fc.bias",
    } <= resnet.keys()


def test_resnet_starts_as_the_original():
    model = CifarResNet(3, 10)
    for module in model.modules():
        if isinstance(module, nn.Conv2d):
            k2_out = module.kernel_size[0] ** 2 * module.out_channels
            count = module.weight.numel()
            ratio = float(module.weight.detach().square().mean()) / (2 / k2_out)
            assert abs(ratio - 1) < 5 * math.sqrt(2 / count)
        if isinstance(module, nn.BatchNorm2d):
            assert bool((module.weight == 1).all())
            assert not module.bias.any()


def test_seeds_fix_the_start_and_leave_the_generator_alone():
    state = torch.get_rng_state()
    one, same, other = (models.build("mlp", (40,), 10, seed) for seed in (1, 1, 2))
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.equal(one[1].weight, same[1].weight)
    assert not torch.equal(one[1].weight, other[1].weight)


def test_unknown_and_unfit_models():
    with pytest.raises(ValueError, match="the model is 'vgg'; expected one of cifar10_shallow, conv1d"):
        models.build("vgg", (3, 32, 32), 10, 0)
    with pytest.raises(ValueError, match="the torchvision model is 'resnet1'; expected one of alexnet"):
        models.build("torchvision:resnet1", (3, 32, 32), 10, 0)
    with pytest.raises(ValueError, match=r"conv1d takes signals of shape .length.*Use mlp or resnet"):
        models.build("conv1d", (3, 32, 32), 10, 0)
    with pytest.raises(ValueError, match=r"resnet takes images .*got samples of \(40,\)"):
        models.build("resnet", (40,), 10, 0)
    with pytest.raises(ValueError, match="takes images of at least 7x7"):
        models.build("cifar10_shallow", (3, 5, 5), 10, 0)


def test_a_users_function_gets_what_it_takes(tmp_path):
    file = tmp_path / "net.py"
    file.write_text(
        "from torch import nn\n"
        "def model(**kwargs):\n    return nn.Linear(kwargs['input_shape'][0], kwargs['num_classes'])\n"
        "def fixed():\n    return nn.Linear(3, 2)\n"
        "def none(num_classes):\n    return num_classes\n"
    )
    assert models.build(f"{file}:model", (7,), 4, 0).weight.shape == (4, 7)
    assert models.build(f"{file}:fixed", (7,), 4, 0).weight.shape == (2, 3)
    with pytest.raises(TypeError, match="none' returned a int; expected a torch.nn.Module"):
        models.build(f"{file}:none", (7,), 4, 0)
