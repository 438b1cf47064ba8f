"""Settings of a run. The commands' options are made from these classes, so each is written once."""

import ast
import dataclasses
import json
import os
import re
import typing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Self

from smoothout import _checks
from smoothout._types import Distribution, LearningRateRule, OneDimensional, Scale, ScheduleName, Sync
from smoothout.auto import AutoStrength, Measure

#: Version of ``config.json``; raised when an older file can no longer be read as it stands.
SCHEMA = 2

MethodName = Literal["smoothout", "lpf", "mrwp", "momentum_sam", "sam", "asam", "ema", "swa"]
Precision = Literal["fp32", "bf16", "fp16"]
LearningRateSchedule = Literal["milestones", "cosine", "constant"]
NoisePer = Literal["ghost_batch", "batch"]
CompileMode = Literal["default", "reduce-overhead", "max-autotune"]

#: Left out of ``config.json`` at their defaults, so that records of versions without them stay what they were.
CAME_LATER = ("noise_per", "compile", "channels_last", "sync")


@dataclass(frozen=True)
class Data:
    """What is learned."""

    dataset: str = "mnist1d"
    """mnist1d, digits, mnist, fashion_mnist, cifar10, cifar100, stl10, imagenet, imagefolder, or FILE.py:function."""
    data_dir: Path | None = None
    """Folder of the data sets [None: the variable SMOOTHOUT_DATA, else ./data]."""
    download: bool = False
    """Fetch the data set if it is not there (mnist, fashion_mnist, cifar10, cifar100, stl10)."""
    holdout: float | None = None
    """Share of the training samples held out for choosing [None: 0.1; mnist1d: 0.5, generated besides]."""
    augment: bool = True
    """Random crops and flips of training images."""
    input_size: int | None = None
    """Side in pixels that images are brought to [None: their own; 224 for imagenet and images of unequal size]."""
    workers: int = 2
    """Processes that read images too many to keep in memory."""

    def __post_init__(self) -> None:
        if self.holdout is not None and not 0 <= self.holdout < 1:
            raise ValueError(f"holdout is {self.holdout}; expected a share from 0 up to 1, such as 0.1.")
        if self.input_size is not None:
            _checks.whole("input_size", self.input_size, at_least=8)
        _checks.whole("workers", self.workers, at_least=0)

    @property
    def folder(self) -> Path:
        """Where the data sets lie."""
        return self.data_dir or Path(os.environ.get("SMOOTHOUT_DATA") or "data")


@dataclass(frozen=True)
class Network:
    """What learns."""

    model: str = "mlp"
    """mlp, conv1d, mnist_f1, cifar10_shallow, cifar100_shallow, resnet, wide_resnet, alexnet, alexnetv2, alexnetv3,
    alexnetvlr, torchvision:NAME, timm:NAME, FILE.py:function or package.module:function."""
    model_config: str = "{}"
    """Further arguments of the model as a Python dict, such as "{'depth': 20}"."""
    num_classes: int | None = None
    """Outputs of the network [None: the classes of the data]."""
    relu_noise: float = 0.0
    """s: in training each activation of a ReLU is multiplied by U(1 - s, 1 + s); resnet only."""
    weights: Path | None = None
    """Start from the weights of this checkpoint: a folder, or a file of the original program."""

    def __post_init__(self) -> None:
        _checks.nonnegative("relu_noise", self.relu_noise, "Use 0 to switch it off.")
        if self.num_classes is not None:
            _checks.whole("num_classes", self.num_classes, at_least=1)
        self.arguments  # noqa: B018 - raises if it is no dict

    @property
    def arguments(self) -> dict[str, Any]:
        """What ``model_config`` says."""
        try:
            made = ast.literal_eval(self.model_config or "{}")
        except (ValueError, SyntaxError):
            made = None
        if not isinstance(made, dict) or not all(isinstance(name, str) for name in made):
            raise ValueError(
                f"model_config is {self.model_config!r}; expected a dict of names and values, quoted for the shell: "
                f"\"{{'depth': 20}}\"."
            )
        return made


@dataclass(frozen=True)
class Batches:
    """How samples make an update."""

    batch_size: int = 1024
    """Samples of a batch."""
    ghost_batch_size: int = 128
    """Samples of a ghost batch: own BatchNorm statistics, and own noise and pass unless --noise-per says otherwise."""
    noise_per: NoisePer = "ghost_batch"
    """ghost_batch: each has a noise and a pass of its own, as in the original; batch: one noise and one pass for the
    whole batch, BatchNorm still by ghost batches: fewer and larger passes, but K times the variance from the noise."""
    accumulation: int = 1
    """Batches per update."""
    copies: int = 1
    """Noises per ghost batch (or batch: --noise-per), over which its gradient is averaged; each costs a pass."""

    def __post_init__(self) -> None:
        _checks.one_of("noise_per", self.noise_per, NoisePer)
        for name in ("batch_size", "ghost_batch_size", "accumulation", "copies"):
            _checks.whole(name, getattr(self, name), at_least=1)


@dataclass(frozen=True)
class Optimization:
    """How the weights step."""

    optimizer: str | None = None
    """A class of torch.optim that needs no closure, Lamb or LARS [None: the model's regime, else SGD]."""
    lr: float | None = None
    """Learning rate of the first epoch at --base-batch samples [None: the model's regime, else 0.05]."""
    lr_rule: LearningRateRule = "sqrt"
    """Factor on the rate: sqrt(samples per update / base batch), linear in it, or none."""
    base_batch: int | None = None
    """Samples per update at which the rate holds [None: the ghost batch size]."""
    lr_schedule: LearningRateSchedule | None = None
    """Decay at milestones, along a cosine to 0, or not at all [None: the model's regime, else milestones]."""
    milestones: tuple[int, ...] = ()
    """Epochs after which the rate is multiplied by --lr-decay [none: the model's regime, else 1/2 and 3/4]."""
    lr_decay: float | None = None
    """Factor at each milestone [None: 0.1]."""
    warmup_steps: int = 0
    """Updates over which the rate rises linearly from 0."""
    momentum: float | None = None
    """Momentum, where the optimizer has one [None: the model's regime; of a model without one 0.9]."""
    weight_decay: float | None = None
    """Weight decay, on every parameter [None: the model's regime; of a model without one 1e-4]."""
    regime: bool = True
    """Take from the model's regime, if it carries one, what is not given here."""
    clip: float = 5.0
    """Largest L2 norm of the gradient; 0 for no clipping."""
    label_smoothing: float = 0.0
    """Share of a target that is spread over all classes, in training."""

    def __post_init__(self) -> None:
        for name in ("lr", "lr_decay", "momentum", "weight_decay", "clip", "label_smoothing"):
            if getattr(self, name) is not None:
                _checks.nonnegative(name, getattr(self, name), "Use 0 to switch it off.")
        if self.milestones and self.lr_schedule not in (None, "milestones"):
            raise ValueError(f"lr_schedule is {self.lr_schedule!r} and milestones are given; leave one of them out.")
        if self.lr_decay is not None and self.lr_schedule in ("cosine", "constant"):
            raise ValueError(f"lr_schedule is {self.lr_schedule!r} and lr_decay is given; leave one of them out.")
        _checks.whole("warmup_steps", self.warmup_steps, at_least=0)
        if self.base_batch is not None:
            _checks.whole("base_batch", self.base_batch, at_least=1)
        if list(self.milestones) != sorted(set(self.milestones)):
            raise ValueError(f"milestones are {self.milestones}; expected epochs in rising order.")


@dataclass(frozen=True)
class Noise:
    """Weight noise; the library's SmoothOut explains each."""

    strength: float | Literal["auto"] = 0.0
    """a: half-width of the noise, or its size relative to the weights; 0 is off, "auto" lets training find it."""
    scale: Scale = "none"
    """none: a; weight: a |w|; filter: a times the filter's norm (AdaSmoothOut)."""
    distribution: Distribution = "uniform"
    """Uniform on (-1, 1) or standard normal."""
    noise_schedule: ScheduleName = "constant"
    """Factor on the strength over the updates."""
    anneal_index: float = 0.55
    """Exponent of the anneal schedule."""
    tanh_scale: float = 10.0
    """Steepness of the tanh schedule."""
    cosine_gain: float = 15.0
    """Rise of the cosine schedule, in strengths."""
    start_step: int = 0
    """Updates before the noise starts."""
    one_dimensional: OneDimensional = "original"
    """Biases and the like: as the original program, or skip them."""
    exclude_bn: bool = True
    """Leave the weights and biases of BatchNorm without noise."""
    denoise: bool = True
    """Take the noise off after each ghost batch; without, it accumulates."""
    clean_share: float = 0.0
    """Share of the ghost batches of each update that get no noise."""
    auto_target: float = AutoStrength.target
    """What the noise may cost in loss, with --strength auto: a share of the loss, or for --auto-measure gap nats."""
    auto_measure: Measure = AutoStrength.measure
    """Whether that is the difference between noisy and clean loss, or its ratio to the clean loss."""
    auto_speed: float = AutoStrength.speed
    """Relative change of the strength in an update, with --strength auto."""
    sync: Sync = "independent"
    """Of several processes: independent gives every ghost batch noise of its own, shared all processes the same."""

    def __post_init__(self) -> None:
        if self.strength != "auto":
            _checks.nonnegative("strength", self.strength, 'Use 0 to switch the noise off, or "auto".')
        AutoStrength(self.auto_target, self.auto_measure, self.auto_speed)  # raises where a value is none
        if self.strength == "auto" and not self.denoise:
            raise ValueError(
                'strength is "auto" and denoise off, so that no loss would be that of clean weights. Leave '
                "--no-denoise out, or give a number."
            )

    @property
    def on(self) -> bool:
        """Whether there is noise."""
        return self.strength != 0

    @property
    def wanted(self) -> float | AutoStrength:
        """The strength as the library takes it."""
        if self.strength != "auto":
            return self.strength
        return AutoStrength(self.auto_target, self.auto_measure, self.auto_speed)


@dataclass(frozen=True)
class Rival:
    """Other ways to flat minima, to compare with."""

    method: MethodName = "smoothout"
    """smoothout: noise as given above, none at strength 0; lpf: Gaussian, by filter, rising along the cosine schedule;
    mrwp: Gaussian, by filter, on every other ghost batch; momentum_sam: weights moved along the momentum; sam, asam:
    along the gradient, two passes; ema, swa: averaged weights are evaluated."""
    rho: float | None = None
    """Length of the move, for momentum_sam, sam and asam [None: 0.3, 0.05 and 0.5, the values of their papers]."""
    average_decay: float | None = None
    """Decay of the moving average in an update, for ema [None: 0.99]."""
    average_start: float | None = None
    """Share of the epochs before the averaging starts, for swa [None: 0.75]."""

    def __post_init__(self) -> None:
        _checks.one_of("method", self.method, MethodName)
        if self.rho is not None and self.method != "momentum_sam":  # whose negative values have a meaning
            _checks.positive("rho", self.rho, "It is the length of the move, such as 0.05.")
        for name in ("average_decay", "average_start"):
            value = getattr(self, name)
            if value is not None and not 0 <= value < 1:
                raise ValueError(f"{name} is {value}; expected a number from 0 up to 1, such as 0.9.")


@dataclass(frozen=True)
class Schedule:
    """How long, from which seed, with what precision."""

    epochs: int = 100
    """Passes over the training samples, before regime adaptation."""
    start_epoch: int = 0
    """Epochs counted as done: the regime, the learning rate and the noise schedule begin there."""
    regime_adaptation: bool = False
    """Train longer: epochs and milestones times ceil(samples per update / base batch)."""
    regime_multiplier: int = 1
    """Epochs and milestones times this."""
    seed: int = 0
    """Of initial weights, data order, augmentation, dropout, hold-out and noise."""
    precision: Precision = "fp32"
    """Of forward and backward; weights and noise stay fp32."""
    compile: CompileMode | None = None
    """Compile training passes by torch.compile in this mode [None: do not]; reduce-overhead and max-autotune replay
    CUDA graphs on a GPU. Last bits and dropout masks differ from those without."""
    channels_last: bool = False
    """Network and images in memory format channels_last, for convolutions on a CPU, or on a GPU in bf16 or fp16."""
    device: str = "auto"
    """auto (an accelerator if there is one), cpu, cuda or cuda:INDEX."""
    evaluate_every: int = 1
    """Epochs between evaluations on hold-out and test samples; the last epoch always is evaluated."""
    checkpoint_every: int = 1
    """Epochs between checkpoints; the last epoch always makes one."""
    save_all: bool = False
    """Keep a checkpoint of every epoch."""

    def __post_init__(self) -> None:
        _checks.whole("epochs", self.epochs, at_least=1)
        _checks.whole("seed", self.seed, at_least=0, below=2**63)
        _checks.whole("evaluate_every", self.evaluate_every, at_least=1)
        _checks.whole("checkpoint_every", self.checkpoint_every, at_least=1)
        _checks.whole("regime_multiplier", self.regime_multiplier, at_least=1)
        _checks.whole("start_epoch", self.start_epoch, at_least=0)
        if self.compile is not None:
            _checks.one_of("compile", self.compile, CompileMode)
        if re.fullmatch(r"auto|cpu|cuda(:\d+)?", self.device) is None:
            raise ValueError(f"device is {self.device!r}; expected auto, cpu, cuda or cuda:INDEX.")


@dataclass(frozen=True)
class Settings:
    """Everything that a run's outcome depends on."""

    data: Data = field(default_factory=Data)
    network: Network = field(default_factory=Network)
    batches: Batches = field(default_factory=Batches)
    optimization: Optimization = field(default_factory=Optimization)
    noise: Noise = field(default_factory=Noise)
    rival: Rival = field(default_factory=Rival)
    schedule: Schedule = field(default_factory=Schedule)

    def flat(self) -> dict[str, Any]:
        """All settings by the names of their options."""
        return {
            setting.name: getattr(getattr(self, group.name), setting.name)
            for group in dataclasses.fields(self)
            for setting in dataclasses.fields(getattr(self, group.name))
        }

    def given(self) -> dict[str, Any]:
        """Those that differ from the defaults, by the names of their options; what leads back to these settings."""
        defaults = type(self)().flat()
        return {name: value for name, value in self.flat().items() if value != defaults[name]}

    def replace(self, **changes: Any) -> Self:
        """These settings with some changed, named as in :meth:`flat`."""
        for name in changes:
            _checks.known("the setting", name, self.flat())
        groups = {}
        for group in dataclasses.fields(self):
            old = getattr(self, group.name)
            mine = {f.name: changes[f.name] for f in dataclasses.fields(old) if f.name in changes}
            groups[group.name] = dataclasses.replace(old, **mine)
        return dataclasses.replace(self, **groups)

    def to_json(self) -> str:
        """As the text of ``config.json``."""
        defaults = type(self)().flat()
        groups = {
            group: {name: value for name, value in settings.items() if not _unused(name, value, defaults)}
            for group, settings in dataclasses.asdict(self).items()
        }
        record = {"schema": SCHEMA, **groups}
        return json.dumps(record, indent=2, default=str) + "\n"

    @classmethod
    def from_json(cls, text: str) -> Self:
        """Read what :meth:`to_json` wrote.

        Raises:
            ValueError: For another schema or an unknown setting.
        """
        record = json.loads(text)
        schema = record.pop("schema", None)
        if schema != SCHEMA:
            raise ValueError(
                f"config.json has schema {schema!r}; this version reads {SCHEMA}. "
                f"Use the version of smoothout that wrote it."
            )
        flat = {name: value for group in record.values() for name, value in group.items()}
        kinds = _kinds(cls)
        restored = {name: _restore(value, kinds.get(name)) for name, value in flat.items()}
        return cls().replace(**restored)


def _unused(name: str, value: Any, defaults: dict[str, Any]) -> bool:
    """Whether a setting came later and is at its default."""
    return name in CAME_LATER and bool(value == defaults[name])


def _kinds(settings: type) -> dict[str, Any]:
    """The declared type of every setting."""
    hints: dict[str, Any] = {}
    for group in typing.get_type_hints(settings).values():
        hints |= typing.get_type_hints(group)
    return hints


def _restore(value: Any, kind: Any) -> Any:
    """JSON knows neither paths nor tuples."""
    if value is not None and Path in (kind, *typing.get_args(kind)):
        return Path(value)
    return tuple(value) if isinstance(value, list) else value
