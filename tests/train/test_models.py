import importlib
import math
import sys
from types import ModuleType

import pytest
import torch
from PIL import Image
from torch import nn

from smoothout.train import models
from smoothout.train.models.noisy_relu import NoisyReLU
from smoothout.train.models.resnet import CifarResNet

# Numbers of weights, from the original program and the papers.
COUNTS = [
    ("mlp", (40,), 10, {}, 91_810),
    ("conv1d", (40,), 10, {}, None),
    ("mnist_f1", (1, 28, 28), 10, {}, 1_462_794),
    ("cifar10_shallow", (3, 32, 32), 10, {}, 1_388_490),
    ("cifar100_shallow", (3, 32, 32), 100, {}, 1_405_860),
    ("resnet", (3, 32, 32), 10, {}, 661_338),
    ("resnet", (3, 32, 32), 10, {"depth": 20}, None),
    ("resnet", (3, 64, 64), 200, {}, None),
    ("resnet", (3, 224, 224), 1000, {}, 11_689_512),
    ("wide_resnet", (3, 32, 32), 10, {}, 2_777_674),
    ("wide_resnet", (1, 28, 28), 10, {"depth": 8}, None),
    ("torchvision:squeezenet1_1", (3, 64, 64), 7, {}, None),
]
# Those that would take long; the ImageNet numbers are also torchvision's.
COUNTS_WITHOUT_STORAGE = [
    ("resnet", 1000, {"depth": 34}, 21_797_672),
    ("resnet", 1000, {"depth": 50}, 25_557_032),
    ("resnet", 1000, {"depth": 101}, 44_549_160),
    ("resnet", 1000, {"depth": 152}, 60_192_808),
    ("wide_resnet", 1000, {}, 25_557_032),
    ("wide_resnet", 1000, {"depth": 18}, 11_689_512),
    ("alexnet", 1000, {}, 61_110_184),
    ("alexnetv2", 1000, {}, 61_110_184),
    ("alexnetv3", 1000, {}, 61_110_184),
    ("alexnetvlr", 1000, {}, 61_110_184),
]


def weights_of(model):
    return sum(p.numel() for p in model.parameters())


def without_storage(name, shape, classes, **options):
    with torch.device("meta"):
        return models.build(name, shape, classes, 0, **options)


@pytest.mark.parametrize(("name", "shape", "classes", "config", "count"), COUNTS)
def test_sizes_and_outputs(name, shape, classes, config, count):
    model = models.build(name, shape, classes, seed=0, config=config)
    if count is not None:
        assert weights_of(model) == count
    assert model.eval()(torch.zeros(2, *shape)).shape == (2, classes)


@pytest.mark.parametrize(("name", "classes", "config", "count"), COUNTS_WITHOUT_STORAGE)
def test_sizes_of_the_large(name, classes, config, count):
    model = without_storage(name, (3, 224, 224), classes, config=config)
    assert weights_of(model) == count
    assert model(torch.zeros(2, 3, 224, 224, device="meta")).shape == (2, classes)


@pytest.mark.parametrize("depth", [8, 13, 14, 20, 32, 110])
def test_depth_of_the_cifar_form_is_that_of_the_paper(depth):
    # 6 n + 2 layers with weights besides the shortcuts; n rounded down as in the original.
    for name, widen in (("resnet", 1), ("wide_resnet", 4)):
        model = without_storage(name, (3, 32, 32), 10, config={"depth": depth})
        layers = [n for n, m in model.named_modules() if isinstance(m, nn.Conv2d | nn.Linear) and "downsample" not in n]
        assert len(layers) == 6 * ((depth - 2) // 6) + 2
        assert [getattr(model, f"layer{k}")[-1].conv2.out_channels for k in (1, 2, 3)] == [
            width * widen for width in (16, 32, 64)
        ]


# -- names ---------------------------------------------------------------------------------------------------


def test_names_of_the_original():
    assert "layers.15.weight" in models.build("mnist_f1", (784,), 10, 0).state_dict()
    for name in ("cifar10_shallow", "cifar100_shallow"):
        shallow = models.build(name, (3, 32, 32), 10, 0).state_dict()
        assert {"features.0.weight", "features.4.weight", "classifier.8.bias"} <= shallow.keys()
    for name in ("resnet", "wide_resnet"):
        resnet = models.build(name, (3, 32, 32), 10, 0).state_dict()
        assert {
            "conv1.weight",
            "bn1.weight",
            "layer2.0.downsample.0.weight",
            "layer2.0.downsample.1.running_var",
            "layer3.1.conv2.weight",
            "layer3.1.bn2.bias",
            "fc.bias",
        } <= resnet.keys()
    imagenet = without_storage("resnet", (3, 224, 224), 10, config={"depth": 50}).state_dict()
    assert {"conv1.weight", "bn1.weight", "layer4.2.conv3.weight", "layer1.0.downsample.1.bias"} <= imagenet.keys()


@pytest.mark.parametrize("name", ["alexnet", "alexnetv2", "alexnetv3", "alexnetvlr"])
def test_alexnet_counts_every_layer(name):
    features = [0, 2, 4, 7, 8, 10, 11, 13, 14, 17]  # convolutions and BatchNorm in turn
    norms = {2, 7, 10, 13, 17}
    expected = {
        f"features.{n}.{part}" for n in features for part in (("weight", "bias") if n in norms else ("weight",))
    }
    expected |= {f"classifier.{n}" for n in ("0.weight", "1.weight", "1.bias", "4.weight", "5.weight", "5.bias")}
    expected |= {"classifier.8.weight", "classifier.8.bias"}
    model = without_storage(name, (3, 224, 224), 1000)
    assert {key for key, _ in model.named_parameters()} == expected
    assert model.features[0].weight.shape == (64, 3, 11, 11)
    assert model.classifier[0].weight.shape == (4096, 9216)
    dropout = {"alexnet": 0.5, "alexnetv2": 0.2, "alexnetv3": 0.0, "alexnetvlr": 0.0}[name]
    assert (model.classifier[3].p, model.classifier[7].p) == (dropout, dropout)


@pytest.mark.parametrize(("side", "flat"), [(63, 256), (96, 1024), (256, 256 * 49)])
def test_alexnet_at_other_sizes(side, flat):
    model = without_storage("alexnet", (3, side, side), 10)
    assert model.classifier[0].in_features == flat
    assert model(torch.zeros(2, 3, side, side, device="meta")).shape == (2, 10)


# -- starts and seeds ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "build",
    [
        lambda: CifarResNet(3, 10),
        lambda: models.build("wide_resnet", (3, 32, 32), 10, 0),
        lambda: models.build("resnet", (3, 65, 65), 10, 0),
    ],
)
def test_resnet_starts_as_the_original(build):
    model = build()
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


def test_relu_noise_leaves_the_start_as_it_is():
    plain, noisy = (models.build("resnet", (3, 8, 8), 4, 5, config={"depth": 8}, relu_noise=s) for s in (0.0, 0.5))
    assert plain.state_dict().keys() == noisy.state_dict().keys()
    assert all(torch.equal(value, noisy.state_dict()[key]) for key, value in plain.state_dict().items())
    images = torch.randn(3, 3, 8, 8)
    assert torch.equal(plain.eval()(images), noisy.eval()(images))


# -- regimes -------------------------------------------------------------------------------------------------

SMALL, LARGE = (3, 32, 32), (3, 224, 224)
REGIMES = [  # learning rates by epoch, weight decay
    ("mnist_f1", SMALL, {0: 0.1, 10: 1e-2, 20: 1e-3, 30: 1e-4}, 1e-4),
    ("cifar10_shallow", SMALL, {0: 1e-3, 60: 1e-2, 120: 1e-3, 180: 1e-4}, 5e-4),
    ("cifar100_shallow", SMALL, {0: 1e-3, 60: 1e-2, 120: 1e-3, 180: 1e-4}, 5e-4),
    ("resnet", SMALL, {0: 0.1, 81: 1e-2, 122: 1e-3, 164: 1e-4}, 1e-4),
    ("resnet", LARGE, {0: 0.1, 30: 1e-2, 60: 1e-3, 90: 1e-4}, 1e-4),
    ("wide_resnet", SMALL, {0: 0.1, 60: 2e-2, 120: 4e-3, 140: 1e-4}, 1e-4),
    ("wide_resnet", LARGE, {0: 0.1, 30: 1e-2, 60: 1e-3, 90: 1e-4}, 1e-4),
    ("alexnet", LARGE, {0: 1e-2, 20: 1e-3, 40: 1e-4}, 5e-4),
    ("alexnetv2", LARGE, {0: 1e-2, 20: 1e-3, 40: 1e-4}, 1e-4),
    ("alexnetv3", LARGE, {0: 1e-2, 20: 1e-3, 40: 1e-4}, 0.0),
    ("alexnetvlr", LARGE, {0: 0.113137, 20: 0.0113137, 40: 0.00113137}, 0.0),
]


@pytest.mark.parametrize(("name", "shape", "rates", "decay"), REGIMES)
def test_regimes_of_the_original(name, shape, rates, decay):
    found = without_storage(name, shape, 10).regime
    assert {epoch: entry.pop("lr") for epoch, entry in found.items()} == pytest.approx(rates, rel=1e-12)
    start = {"optimizer": "SGD", "momentum": 0.9, "weight_decay": decay}
    assert found == {epoch: start if epoch == 0 else {} for epoch in rates}
    assert without_storage(name, shape, 10).regime[0]["lr"] == pytest.approx(rates[0])  # a dict of its own each time


def test_our_own_models_have_no_regime():
    for name in ("mlp", "conv1d"):
        assert not hasattr(models.build(name, (40,), 10, 0), "regime")


def test_alexnet_brings_small_images_to_224():
    model = without_storage("alexnet", (3, 32, 62), 10)
    assert model.classifier[0].in_features == 256 * 6 * 6
    assert model.input_transform["train"](Image.new("RGB", (62, 32))).shape == (3, 224, 224)


@pytest.mark.parametrize(("shape", "resized"), [((3, 224, 224), 256), ((3, 63, 63), 72), ((3, 70, 112), 128)])
def test_alexnet_brings_its_transforms(shape, resized):
    found = without_storage("alexnetv2", shape, 10).input_transform
    picture = Image.new("RGB", (300, 200), (255, 0, 0))
    for split in ("train", "eval"):
        resize, crop, *_ = found[split].transforms
        assert resize.size == resized
        assert tuple(crop.size) == shape[1:]
        image = found[split](picture)
        assert image.shape == shape
        expected = torch.tensor([(1 - 0.485) / 0.229, -0.456 / 0.224, -0.406 / 0.225])
        assert torch.allclose(image.mean((1, 2)), expected, atol=1e-4)
    assert [type(step).__name__ for step in found["train"].transforms] == [
        *("Resize", "RandomCrop", "RandomHorizontalFlip", "ToTensor", "Normalize")
    ]
    assert [type(step).__name__ for step in found["eval"].transforms] == [
        "Resize",
        "CenterCrop",
        "ToTensor",
        "Normalize",
    ]


# -- noise of the ReLU ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("s", [0.0, 0.3, 1.0])
def test_noisy_relu_draws_slopes_of_the_stated_law(s):
    inputs = torch.ones(200_000, dtype=torch.float64, requires_grad=True)
    outputs = NoisyReLU(s)(inputs)
    (slopes,) = torch.autograd.grad(outputs.sum(), inputs)
    assert torch.equal(slopes, outputs.detach())  # max(0, 1) is 1
    assert bool((slopes >= 1 - s).all())
    assert bool((slopes <= 1 + s).all())
    if s == 0:
        return
    units = (slopes - 1) / s  # U(-1, 1): mean 0, variance 1/3, fourth moment 1/5, neighbours uncorrelated
    count = len(units)
    assert abs(float(units.mean())) < 5 * math.sqrt(1 / 3 / count)
    assert abs(float(units.square().mean()) - 1 / 3) < 5 * math.sqrt((1 / 5 - 1 / 9) / count)
    assert abs(float((units[1:] * units[:-1]).mean())) < 5 * math.sqrt(1 / 9 / count)
    assert float(units.max() - units.min()) > 1.999


def test_noisy_relu_has_one_slope_per_activation_and_none_below_zero():
    inputs = torch.randn(4, 3, 5, requires_grad=True)
    torch.default_generator.manual_seed(1)
    outputs = NoisyReLU(0.5)(inputs)
    (slopes,) = torch.autograd.grad(outputs.sum(), inputs)
    assert torch.equal(outputs, inputs.clamp(min=0) * slopes)
    assert not slopes[inputs <= 0].any()
    positive = slopes[inputs > 0]
    assert len(positive.unique()) == len(positive)
    torch.default_generator.manual_seed(1)
    assert torch.equal(NoisyReLU(0.5)(inputs), outputs)
    assert not torch.equal(NoisyReLU(0.5)(inputs), outputs)


def test_noisy_relu_is_plain_in_evaluation_and_keeps_nothing():
    layer = NoisyReLU(1.0)
    inputs = torch.randn(100)
    layer(inputs)
    assert torch.equal(layer.eval()(inputs), torch.relu(inputs))
    assert not layer.state_dict()
    assert not list(layer.buffers())
    assert repr(layer) == "NoisyReLU(s=1.0)"


@pytest.mark.parametrize("shape", [(3, 32, 32), (3, 224, 224)])
def test_every_relu_of_resnet_takes_noise(shape):
    plain, noisy = (without_storage("resnet", shape, 10, relu_noise=s) for s in (0.0, 0.25))
    places = [name for name, module in plain.named_modules() if isinstance(module, nn.ReLU)]
    assert [name for name, module in noisy.named_modules() if isinstance(module, NoisyReLU)] == places
    assert not [name for name, module in noisy.named_modules() if isinstance(module, nn.ReLU)]
    assert noisy.relu.s == noisy.layer2[0].relu.s == 0.25
    assert not [name for name, module in plain.named_modules() if isinstance(module, NoisyReLU)]


def test_a_noisy_resnet_learns():
    model = models.build("resnet", (3, 8, 8), 4, 0, config={"depth": 8}, relu_noise=0.5)
    images = torch.randn(4, 3, 8, 8)
    first, second = model(images), model(images)
    assert not torch.equal(first, second)
    first.sum().backward()
    assert all(p.grad is not None and bool(p.grad.isfinite().all()) for p in model.parameters())


def test_noise_that_makes_no_sense_is_refused():
    with pytest.raises(ValueError, match=r"relu_noise is 1.5; expected a number from 0 to 1, above"):
        NoisyReLU(1.5)
    with pytest.raises(ValueError, match=r"relu_noise is -0.1; expected a finite number >= 0. Use 0 to switch"):
        models.build("resnet", (3, 8, 8), 4, 0, relu_noise=-0.1)
    with pytest.raises(TypeError, match="relu_noise is '0.1'; expected a number"):
        NoisyReLU("0.1")
    for name in sorted(models.MODELS.keys() - {"resnet"}) + ["torchvision:resnet18", "timm:resnet18", "net.py:model"]:
        with pytest.raises(ValueError, match=f"relu_noise is 0.1 and the model '{name}'; only resnet takes it. Choose"):
            models.build(name, (3, 224, 224), 10, 0, relu_noise=0.1)


# -- configuration -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "taken"), [(name, "depth" if "resnet" in name else "none") for name in sorted(models.MODELS)]
)
def test_what_a_model_does_not_take(name, taken):
    # What the data or other options give is no part of the configuration either.
    for key in ("layers", "classes", "input_shape", "relu_noise"):
        with pytest.raises(
            ValueError, match=f"the model config gives '{key}', which '{name}' does not take; it takes {taken}[.]"
        ):
            models.build(name, (3, 224, 224), 10, 0, config={key: 1})


def test_configuration_is_left_as_it_was():
    config = {"depth": 8}
    models.build("resnet", (3, 8, 8), 4, 0, config=config, relu_noise=0.5)
    assert config == {"depth": 8}


@pytest.mark.parametrize("name", ["resnet", "wide_resnet"])
def test_depths_that_there_are_not(name):
    with pytest.raises(ValueError, match="depth is 7; expected a whole number >= 8"):
        models.build(name, (3, 32, 32), 10, 0, config={"depth": 7})
    with pytest.raises(TypeError, match="depth is '20'; expected a whole number >= 8"):
        models.build(name, (3, 32, 32), 10, 0, config={"depth": "20"})
    for depth in (44, [18]):
        with pytest.raises(
            ValueError,
            match=rf"depth is {depth!r}; expected one of 18, 34, 50, 101, 152 for {name} above 64 pixels".replace(
                "[", r"\["
            ),
        ):
            models.build(name, (3, 65, 65), 10, 0, config={"depth": depth})


def test_unknown_and_unfit_models():
    with pytest.raises(
        ValueError,
        match=r"the model is 'vgg'; expected one of alexnet, alexnetv2, .*, wide_resnet, or torchvision:NAME, "
        r"timm:NAME, FILE.py:function or package.module:function\.",
    ):
        models.build("vgg", (3, 32, 32), 10, 0)
    with pytest.raises(ValueError, match="the torchvision model is 'resnet1'; expected one of alexnet"):
        models.build("torchvision:resnet1", (3, 32, 32), 10, 0)
    with pytest.raises(ValueError, match=r"conv1d takes signals of shape .length.*Use mlp or resnet"):
        models.build("conv1d", (3, 32, 32), 10, 0)
    for name in ("resnet", "wide_resnet"):
        with pytest.raises(ValueError, match=rf"^{name} takes images .*got samples of \(40,\)"):
            models.build(name, (40,), 10, 0)
        with pytest.raises(ValueError, match=rf"^{name} takes 3 channels above 64 pixels, got samples of \(1, 65"):
            models.build(name, (1, 65, 65), 10, 0)
    for name in ("cifar10_shallow", "cifar100_shallow"):
        with pytest.raises(ValueError, match=f"^{name} takes images of at least 7x7"):
            models.build(name, (3, 5, 5), 10, 0)
    for shape in ((1, 224, 224), (40,)):
        with pytest.raises(ValueError, match="^alexnetvlr takes images of 3 channels, got samples of"):
            models.build("alexnetvlr", shape, 10, 0)


# -- models of others ----------------------------------------------------------------------------------------


def test_torchvision_takes_its_own_configuration():
    model = models.build("torchvision:squeezenet1_1", (3, 64, 64), 7, 0, config={"dropout": 0.25})
    assert model.classifier[0].p == 0.25
    with pytest.raises(ValueError, match=r"'squeezenet1_1' does not take the model config {'depth': 3}: .*'depth'"):
        models.build("torchvision:squeezenet1_1", (3, 64, 64), 7, 0, config={"depth": 3})


@pytest.fixture
def timm(monkeypatch):
    """A stand-in with the three functions of timm that are called; it keeps what it was given."""

    class Timm(ModuleType):
        given = None

        def list_models(self):
            return ["resnet10t", "resnet18", "vit_tiny_patch16_224"]

        def is_model(self, name):
            return name.partition(".")[0] in self.list_models()  # timm ignores the tag of the weights here

        def create_model(self, name, *, pretrained=False, num_classes=1000, in_chans=3, img_size=None):
            self.given = (name, pretrained, num_classes, in_chans, img_size)
            return nn.Linear(in_chans, num_classes)

    stub = Timm("timm")
    monkeypatch.setitem(sys.modules, "timm", stub)
    return stub


def test_timm_is_given_classes_and_channels(timm):
    model = models.build("timm:resnet10t", (1, 28, 28), 7, 0)
    assert timm.given == ("resnet10t", False, 7, 1, None)
    assert model.weight.shape == (7, 1)
    assert torch.equal(model.weight, models.build("timm:resnet10t", (1, 28, 28), 7, 0).weight)
    models.build("timm:vit_tiny_patch16_224.augreg_in21k", (3, 32, 32), 7, 0, config={"img_size": 32})
    assert timm.given == ("vit_tiny_patch16_224.augreg_in21k", False, 7, 3, 32)


def test_timm_refuses(timm):
    with pytest.raises(ValueError, match=r"the timm model is 'resnet10'; expected one of timm.list_models\(\); close "):
        models.build("timm:resnet10", (3, 32, 32), 7, 0)
    with pytest.raises(ValueError, match="the timm model is 'hf-hub:x/y'; .*; none is close to it"):
        models.build("timm:hf-hub:x/y", (3, 32, 32), 7, 0)
    with pytest.raises(ValueError, match=r"'resnet18' does not take the model config {'depth': 3}: .*'depth'"):
        models.build("timm:resnet18", (3, 32, 32), 7, 0, config={"depth": 3})
    with pytest.raises(ValueError, match=r"timm:resnet18 takes images of shape \(C, H, W\), got samples of \(40,\)"):
        models.build("timm:resnet18", (40,), 7, 0)


def test_a_library_that_is_not_there_or_is_broken(monkeypatch, timm):
    def broken(*args, **kwargs):
        raise TypeError("of its own")

    monkeypatch.setattr(type(timm), "create_model", broken)
    with pytest.raises(TypeError, match="^of its own$"):  # without a configuration it is no fault of the user
        models.build("timm:resnet18", (3, 32, 32), 7, 0)
    monkeypatch.setitem(sys.modules, "timm", None)
    with pytest.raises(RuntimeError, match="'timm:resnet18' needs timm, which is not installed; pip install timm"):
        models.build("timm:resnet18", (3, 32, 32), 7, 0)


def test_timm_whose_own_imports_fail_says_so_itself(monkeypatch, tmp_path):
    (tmp_path / "timm.py").write_text("import no_such_module_at_all\n")
    monkeypatch.delitem(sys.modules, "timm", raising=False)
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ModuleNotFoundError, match="no_such_module_at_all"):
        models.build("timm:resnet18", (3, 32, 32), 7, 0)


def test_importing_the_models_imports_no_library_of_models(monkeypatch):
    loaded = [name for name in sys.modules if name.partition(".")[0] == "torchvision"]
    for library in (*loaded, "torchvision", "timm"):
        monkeypatch.setitem(sys.modules, library, None)  # None: importing it fails
    monkeypatch.setattr("smoothout.train.models", models)  # so that it stands there again after this
    for name in [name for name in sys.modules if name.startswith("smoothout.train.models")]:
        monkeypatch.delitem(sys.modules, name)
    fresh = importlib.import_module("smoothout.train.models")
    assert fresh is not models
    assert fresh.build("cifar100_shallow", (3, 9, 9), 4, 0).regime[0]["lr"] == 1e-3
    with pytest.raises(ModuleNotFoundError, match="torchvision"):
        fresh.build("resnet", (3, 9, 9), 4, 0)


# -- models of users -----------------------------------------------------------------------------------------

USERS = """
from torch import nn
def model(**kwargs):
    made = nn.Linear(kwargs["input_shape"][0], kwargs["num_classes"])
    made.kwargs = kwargs
    return made
def fixed():
    return nn.Linear(3, 2)
def none(num_classes):
    return num_classes
def chosen(num_classes, input_size=5, *, depth=1):
    return nn.Linear(input_size, num_classes * depth)
class Net(nn.Linear):
    def __init__(self, num_classes, input_shape):
        super().__init__(*input_shape, num_classes)
        self.regime = {0: {"optimizer": "SGD", "lr": 1e-2}, 15: {"lr": 1e-3}}
        self.quiet_parameters = ["bias"]
"""


@pytest.fixture(params=["file", "module"])
def users(request, tmp_path, monkeypatch):
    """USERS as a file and as a module of a package, without the function's name."""
    if request.param == "file":
        (tmp_path / "net.py").write_text(USERS)
        return f"{tmp_path}/net.py"
    package = tmp_path / "users_models"
    package.mkdir()
    (package / "__init__.py").write_text("")
    (package / "nets.py").write_text(USERS)
    monkeypatch.syspath_prepend(tmp_path)
    for name in ("users_models", "users_models.nets"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    return "users_models.nets"


def test_a_users_function_gets_what_it_takes(users):
    assert models.build(f"{users}:model", (7,), 4, 0).kwargs == {"num_classes": 4, "input_shape": (7,)}
    images = models.build(f"{users}:model", (3, 8, 9), 4, 0)
    assert images.kwargs == {"num_classes": 4, "input_shape": (3, 8, 9), "input_size": 9}
    assert models.build(f"{users}:fixed", (7,), 4, 0).weight.shape == (2, 3)
    assert models.build(f"{users}:chosen", (3, 8, 8), 4, 0).weight.shape == (4, 8)
    assert models.build(f"{users}:chosen", (7,), 4, 0).weight.shape == (4, 5)
    with pytest.raises(TypeError, match="none' returned a int; expected a torch.nn.Module"):
        models.build(f"{users}:none", (7,), 4, 0)


def test_a_users_model_is_seeded_and_keeps_its_attributes(users):
    one, same, other = (models.build(f"{users}:Net", (7,), 4, seed) for seed in (1, 1, 2))
    assert torch.equal(one.weight, same.weight)
    assert not torch.equal(one.weight, other.weight)
    assert one.regime == {0: {"optimizer": "SGD", "lr": 1e-2}, 15: {"lr": 1e-3}}
    assert one.quiet_parameters == ["bias"]


def test_configuration_of_a_users_function(users):
    made = models.build(f"{users}:chosen", (3, 8, 8), 4, 0, config={"depth": 3, "input_size": 2})
    assert made.weight.shape == (12, 2)  # what the user says wins over what the data says
    assert models.build(f"{users}:model", (7,), 4, 0, config={"any": 1}).kwargs["any"] == 1
    with pytest.raises(
        ValueError, match="gives 'dept', which .*:chosen' does not take; it takes depth, input_size, num_classes[.]$"
    ):
        models.build(f"{users}:chosen", (7,), 4, 0, config={"depth": 1, "dept": 3})
    with pytest.raises(ValueError, match="gives 'depth', which .*:fixed' does not take; it takes none[.]$"):
        models.build(f"{users}:fixed", (7,), 4, 0, config={"depth": 3})
