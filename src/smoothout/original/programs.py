"""The original's programs: their flags read, and turned into a command of ours."""

import argparse
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from smoothout import _checks
from smoothout.original.options import OPTIONS, PROGRAMS, Option, without_effect
from smoothout.train.original_checkpoint import read
from smoothout.train.user_code import is_user_code

_DATA = Path("pytorch-gen")
_FETCHED = {"mnist", "cifar10", "cifar100", "stl10"}
_MODELS = {"wide_WResNet": "wide_resnet"}
_TYPES = {"FloatTensor": "fp32", "HalfTensor": "fp16"}
_NORMAL_BASE, _NORMAL_SEED = "256", "123"


@dataclass(frozen=True)
class Command:
    """A command of ours, and what to say about it.

    Attributes:
        words: Command and arguments, as after ``smoothout``.
        notices: What the user should know of the translation.
    """

    words: tuple[str, ...]
    notices: tuple[str, ...]


def translate(program: str, arguments: Sequence[str]) -> Command:
    """Turn a program of the original and its arguments into a command of ours.

    Raises:
        SystemExit: By argparse, which names what it does not know.
        ValueError: For an unknown program, or values that have no meaning here.
    """
    _checks.known("the program", program.removesuffix(".py"), PROGRAMS)
    program = program.removesuffix(".py")
    given = _parse(program, arguments)
    values = {option.name: given.get(option.name, option.default_in(program)) for option in _options(program)}
    notices = [
        f"{option.flags[0]} has no effect in {program}: {option.note or 'it had none in the original either.'}"
        for option in _options(program)
        if option.name in given and without_effect(option, program)
    ]
    command = PROGRAMS[program]
    if command == "train" and values["evaluate"]:
        command = "evaluate"
    words = _COMMANDS[command](program, values, given, notices)
    return Command((command, *words), tuple(notices))


def _options(program: str) -> list[Option]:
    return [option for option in OPTIONS if program in option.programs]


def _parse(program: str, arguments: Sequence[str]) -> dict[str, Any]:
    """Only what was given, by the names of the rows."""
    parser = argparse.ArgumentParser(prog=f"python -m smoothout.original {program}", argument_default=argparse.SUPPRESS)
    for option in _options(program):
        help_ = f"{option.ours.get(PROGRAMS[program], 'no effect')}. {option.note}".replace("%", "%%")
        if option.kind is bool:
            parser.add_argument(*option.flags, dest=option.name, action="store_true", help=help_)
            parser.add_argument(f"--no-{option.flags[0].lstrip('-')}", dest=option.name, action="store_false")
        else:
            parser.add_argument(*option.flags, dest=option.name, type=option.kind, help=help_)
    return vars(parser.parse_args(list(arguments)))


Values = Mapping[str, Any]


def _train(program: str, values: Values, given: Values, notices: list[str]) -> list[str]:
    resumed = _resume(Path(values["resume"]), given.get("start_epoch")) if values["resume"] else []
    if "--resume" in resumed:
        code = {name: given[name] for name in ("dataset", "model") if is_user_code(given.get(name, ""))}
        return [*resumed, *(word for name, value in code.items() for word in (f"--{name}", value))]
    words = [*_problem(values, given, notices), *resumed]
    words += ["--results-dir", str(values["results_dir"])]
    words += ["--epochs", str(values["epochs"]), "--batch-size", str(values["batch_size"])]
    normal = program == "main_normal"
    words += ["--ghost-batch-size", str(values["batch_size"] if normal else values["mini_batch_size"])]
    words += ["--base-batch", _NORMAL_BASE, "--seed", _NORMAL_SEED] if normal else []
    words += ["--lr-rule", values.get("lr_fix_policy", "sqrt") if values["lr_bb_fix"] else "none"]
    words += _optimizer(values, given)
    uniform = values.get("adapt_type") == "weight"
    for name in (
        *(() if resumed else ("start_epoch",)),
        *("save", "regime_bb_fix", "regime_bb_multi", "batch_multiplier", "sharpness_smoothing"),
        *(() if uniform else ("noise_type",)),
        *("adapt_type", "smoothing_type", "anneal_index", "tanh_scale", "exclude_bn", "denoise", "relu_noise"),
        *("augment", "save_all", "print_freq"),
    ):
        if name in given:
            words += _word(_option(name), given[name], "train")
    return words


def _optimizer(values: Values, given: Values) -> list[str]:
    """Optimizer and rate, where they were given; the original's Adam came with the rate of --lr."""
    words = []
    for name in ("optimizer", "lr", "momentum", "weight_decay"):
        if name in given:
            words += _word(_option(name), given[name], "train")
    if given.get("optimizer", "SGD") != "SGD" and "lr" not in given:
        words += ["--lr", str(values["lr"])]
    return words


def _evaluate(program: str, values: Values, given: Values, notices: list[str]) -> list[str]:
    if not values["evaluate"]:
        raise ValueError(f"{program} needs a checkpoint. Name it: --evaluate FILE.")
    split = {"val": "test", "train": "train"}.get(values.get("mode", "val"))
    if split is None:
        raise ValueError(f"mode is {values['mode']!r}; expected val or train.")
    words = [str(values["evaluate"]), *_problem(values, given, notices)]
    words += ["--split", split, "--batch-size", str(values["batch_size"])]
    if program == "evaluate":
        words += ["--strength", str(values["sharpness_smoothing"]), "--no-exclude-bn", "--draws", "1"]
        words += ["--augment"] if values["augment"] else []
    return words


def _landscape(program: str, values: Values, given: Values, notices: list[str]) -> list[str]:
    words = [str(values["evaluate"]), *_problem(values, given, notices)]
    if program == "visualize_sharpness":
        words += ["--to", str(values["slave_evaluate"]), "--mode", values["mode"]]
    words += [f"--alpha={values['alpha']}", "--splits", *(["train"] if values["visualize_train"] else []), "test"]
    return [*words, "--batch-size", str(values["batch_size"])]


def _sharpness(_program: str, values: Values, given: Values, notices: list[str]) -> list[str]:
    words = [str(values["evaluate"]), *_problem(values, given, notices), "--measures", "box"]
    words += ["--epsilon", str(values["epsilon"]), "--manifold", str(values["manifolds"])]
    return [*words, "--draws", str(values["times"]), "--batch-size", str(values["batch_size"])]


_COMMANDS: Mapping[str, Callable[[str, Values, Values, list[str]], list[str]]] = {
    "train": _train,
    "evaluate": _evaluate,
    "landscape": _landscape,
    "sharpness": _sharpness,
}


def _problem(values: Values, given: Values, notices: list[str]) -> list[str]:
    """Data, model, precision and device: what all programs share."""
    dataset, model = values["dataset"], values["model"]
    if Path(dataset).is_dir():
        words = ["--dataset", "imagefolder", "--data-dir", dataset]
    else:
        words = ["--dataset", dataset, *(["--data-dir", str(_DATA)] if _DATA.is_dir() else [])]
        words += ["--download"] if dataset in _FETCHED else []
    words += ["--model", _MODELS.get(model, model)]
    for name in ("input_size", "model_config", "workers"):
        if name in given:
            words += _word(_option(name), given[name], "train")
    return words + _device(values, given, notices)


def _device(values: Values, given: Values, notices: list[str]) -> list[str]:
    """Precision and device of --type and --gpus."""
    kind = values["type"].removeprefix("torch.")
    precision = _TYPES.get(kind.removeprefix("cuda."))
    if precision is None:
        raise ValueError(f"type is {values['type']!r}; expected torch[.cuda].FloatTensor or torch[.cuda].HalfTensor.")
    gpus = str(values["gpus"]).split(",")
    device = f"cuda:{gpus[0]}" if kind.startswith("cuda.") else "cpu"
    if device != "cpu" and not torch.cuda.is_available():
        notices.append("torch finds no CUDA device; this runs on the CPU.")
        device = "cpu"
    elif len(gpus) > 1:
        notices.append(f"--gpus {values['gpus']}: one process uses one GPU; this uses {device}.")
    if device == "cpu" and precision == "fp16":
        notices.append("fp16 on a CPU would silently be fp32; this uses bf16.")
        precision = "bf16"
    return [*(["--precision", precision] if "type" in given else []), "--device", device]


def _resume(path: Path, start_epoch: int | None) -> list[str]:
    """A run of ours goes on; a file of the original gives weights and the epoch to start with."""
    if (path / "config.json").is_file():
        return ["--resume", "--name", path.name, "--results-dir", str(path.parent)]
    file = path / "model_best.pth.tar" if path.is_dir() else path
    if not file.is_file():
        raise FileNotFoundError(f"{path} is neither a run nor a checkpoint; expected a folder or a model_best.pth.tar.")
    epoch = read(file).epoch if start_epoch is None else start_epoch
    return ["--weights", str(file), "--start-epoch", str(epoch)]


def _option(name: str) -> Option:
    return next(option for option in OPTIONS if option.name == name)


def _word(option: Option, value: Any, command: str) -> list[str]:
    """An option of ours with a value."""
    ours = option.ours[command]
    if option.kind is bool:
        return [ours if value else f"--no-{ours.removeprefix('--')}"]
    return [ours, str(value)]
