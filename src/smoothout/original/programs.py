"""The original's programs: their flags read, and turned into a command of ours."""

import argparse
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from smoothout import _checks
from smoothout.original.options import OPTIONS, PROGRAMS, Option
from smoothout.train.data import DATA_SETS
from smoothout.train.data.files import DOWNLOADABLE
from smoothout.train.original_checkpoint import parse_config, read, split_config
from smoothout.train.user_code import is_user_code

_DATA = Path("pytorch-gen")
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


@dataclass(frozen=True)
class Call:
    """A call of a program.

    Attributes:
        program: Its name.
        values: Of all its flags, by the names of the rows; defaults included.
        given: Those that were given.
        notices: What the user should know; grows while the call is translated.
    """

    program: str
    values: Mapping[str, Any]
    given: Mapping[str, Any]
    notices: list[str] = field(default_factory=list)


def translate(program: str, arguments: Sequence[str]) -> Command:
    """Turn a program of the original and its arguments into a command of ours.

    Raises:
        SystemExit: By argparse, which names what it does not know.
        ValueError: For an unknown program, or values that have no meaning here.
    """
    program = program.removesuffix(".py")
    _checks.known("the program", program, PROGRAMS)
    given = _parse(program, arguments)
    values = {option.name: given.get(option.name, option.default_in(program)) for option in _options(program)}
    call = Call(program, values, given)
    command = "evaluate" if PROGRAMS[program] == "train" and values["evaluate"] else PROGRAMS[program]
    run = _run_to_resume(Path(values["resume"])) if command == "train" and values["resume"] else None
    if run is not None:
        call.notices.extend(
            f"{_option(name).flags[0]} is left out: a resumed run keeps the settings that it was started with."
            for name in sorted(given.keys() - {"resume", "dataset", "model"})
        )
        return Command(("train", *_resume(call, run)), tuple(call.notices))
    call.notices.extend(
        f"{option.flags[0]} has no effect in {program}: {option.note or 'it had none in the original either.'}"
        for option in _options(program)
        if option.name in given and command not in option.ours
    )
    return Command((command, *_COMMANDS[command](call)), tuple(call.notices))


def _options(program: str) -> list[Option]:
    return [option for option in OPTIONS if program in option.programs]


def _parse(program: str, arguments: Sequence[str]) -> dict[str, Any]:
    """Only what was given, by the names of the rows."""
    parser = argparse.ArgumentParser(
        prog=f"python -m smoothout.original {program}",
        usage=f"python -m smoothout.original {program} [flags of {program}.py]; --help lists them",
        description=f"Takes the flags of the original's {program}.py and runs the command of smoothout that they mean.",
        argument_default=argparse.SUPPRESS,
    )
    for option in _options(program):
        ours = option.ours.get(PROGRAMS[program])
        meaning = f"here {ours}." if ours else "No effect."
        help_ = f"{meaning} {option.note} [default: {option.default_in(program)}]".replace("%", "%%")
        if option.kind is bool:
            parser.add_argument(*option.flags, dest=option.name, action="store_true", help=help_)
            parser.add_argument(f"--no-{option.flags[0].lstrip('-')}", dest=option.name, action="store_false")
        else:
            parser.add_argument(*option.flags, dest=option.name, type=option.kind, help=help_)
    return vars(parser.parse_args(list(arguments)))


def _train(call: Call) -> list[str]:
    values, given = call.values, call.given
    words = [*_problem(call), *_weights(call), "--results-dir", str(values["results_dir"])]
    words += ["--epochs", str(values["epochs"]), "--batch-size", str(values["batch_size"])]
    normal = call.program == "main_normal"
    words += ["--ghost-batch-size", str(values["batch_size"] if normal else values["mini_batch_size"])]
    words += ["--base-batch", _NORMAL_BASE, "--seed", _NORMAL_SEED] if normal else []
    words += ["--lr-rule", values.get("lr_fix_policy", "sqrt") if values["lr_bb_fix"] else "none"]
    words += _optimizer(call)
    uniform = values.get("adapt_type") == "weight"
    for name in (
        *("save", "regime_bb_fix", "regime_bb_multi", "batch_multiplier", "sharpness_smoothing"),
        *(() if uniform else ("noise_type",)),
        *("adapt_type", "smoothing_type", "anneal_index", "tanh_scale", "exclude_bn", "denoise", "relu_noise"),
        *("augment", "save_all", "print_freq"),
    ):
        if name in given:
            words += _word(_option(name), given[name], "train")
    return words


def _optimizer(call: Call) -> list[str]:
    """Optimizer and rate, where they were given; the original's Adam came with the rate of --lr."""
    words = []
    for name in ("optimizer", "lr", "momentum", "weight_decay"):
        if name in call.given:
            words += _word(_option(name), call.given[name], "train")
    if call.given.get("optimizer", "SGD") != "SGD" and "lr" not in call.given:
        words += ["--lr", str(call.values["lr"])]
    elif "lr" not in call.given and is_user_code(call.values["model"]):
        call.notices.append(
            f"if the model carries no regime, lr is 0.05 and weight decay 1e-4 here; {call.program} had "
            f"{call.values['lr']} and {call.values['weight_decay'] or 0}. Give --lr and --wd for those."
        )
    return words


def _evaluate(call: Call) -> list[str]:
    values = call.values
    split = {"val": "test", "train": "train"}.get(values.get("mode", "val"))
    if split is None:
        raise ValueError(f"mode is {values['mode']!r}; expected val or train.")
    words = [_checkpoint(call), *_problem(call), "--split", split, "--batch-size", str(values["batch_size"])]
    if call.program == "evaluate":
        words += ["--strength", str(values["sharpness_smoothing"]), "--no-exclude-bn", "--draws", "1"]
        words += ["--augment"] if values["augment"] else []
        return words
    call.notices.extend(
        f"{_option(name).flags[0]} is left out: {call.program} evaluates without; the program evaluate takes it."
        for name in ("sharpness_smoothing", "augment")
        if name in call.given
    )
    return words


def _landscape(call: Call) -> list[str]:
    values = call.values
    words = [_checkpoint(call), *_problem(call)]
    if call.program == "visualize_sharpness":
        if not values["slave_evaluate"]:
            raise ValueError("visualize_sharpness needs a second checkpoint. Name it: --slave-evaluate FILE.")
        words += ["--to", str(values["slave_evaluate"]), "--mode", values["mode"]]
    else:
        words += ["--direction", "uniform", "--one-dimensional", "scale"]
    words += _results(call)
    alpha = values["alpha"]
    if values.get("mode") == "sin" and "alpha" not in call.given:
        alpha = "0:0.05:1.01"
        call.notices.append(f"alpha is {alpha}: outside [0, 1] the sine turns back, and the line would go to and fro.")
    words += [f"--alpha={alpha}", "--splits", *(["train"] if values["visualize_train"] else []), "test"]
    return [*words, "--batch-size", str(values["batch_size"])]


def _sharpness(call: Call) -> list[str]:
    values = call.values
    call.notices.append("measured on the training samples, as the paper defines it; --split test for the original's.")
    words = [_checkpoint(call), *_problem(call), "--measures", "box", "--epsilon", str(values["epsilon"])]
    if values["manifolds"]:
        words += ["--manifold", str(values["manifolds"]), "--columns", "original", "--draws", str(values["times"])]
    elif values["times"] > 1:
        call.notices.append(f"--times {values['times']}: nothing is random in the full space; it is searched once.")
    return [*words, *_results(call), "--batch-size", str(values["batch_size"])]


def _results(call: Call) -> list[str]:
    """Where the results go."""
    words = ["--results-dir", str(call.values["results_dir"])]
    return [*words, *(["--name", call.values["save"]] if call.values["save"] else [])]


_COMMANDS: Mapping[str, Callable[[Call], list[str]]] = {
    "train": _train,
    "evaluate": _evaluate,
    "landscape": _landscape,
    "sharpness": _sharpness,
}


def _checkpoint(call: Call) -> str:
    if not call.values["evaluate"]:
        raise ValueError(f"{call.program} needs a checkpoint. Name it: --evaluate FILE.")
    return str(call.values["evaluate"])


def _problem(call: Call) -> list[str]:
    """Data, model, precision and device: what all programs share."""
    # A checkpoint's folder names its data and its model, a file of the original its model.
    checkpoint = Path(call.values["evaluate"]) if call.values["evaluate"] else None
    words = [] if checkpoint and checkpoint.is_dir() and "dataset" not in call.given else _data(call)
    if "model" in call.given or not (checkpoint and checkpoint.exists()):
        model = call.values["model"]
        words += ["--model", _MODELS.get(model, model)]
    for name in ("input_size", "workers"):
        if name in call.given:
            words += _word(_option(name), call.given[name], PROGRAMS[call.program])
    return words + _config(call) + _device(call)


def _config(call: Call) -> list[str]:
    """The model's arguments; those that are options here become such."""
    changes, config = split_config(parse_config(call.values["model_config"], "--model_config"))
    if PROGRAMS[call.program] != "train" or call.values["evaluate"]:
        changes.pop("relu_noise", None)  # there is none in evaluation
    words = [word for name, value in changes.items() for word in (f"--{name.replace('_', '-')}", str(value))]
    return [*words, *(["--model-config", repr(config)] if config else [])]


def _data(call: Call) -> list[str]:
    dataset = call.values["dataset"]
    if dataset not in DATA_SETS and Path(dataset).is_dir():
        return ["--dataset", "imagefolder", "--data-dir", dataset]
    words = ["--dataset", dataset, *(["--data-dir", str(_DATA)] if _DATA.is_dir() else [])]
    return [*words, *(["--download"] if dataset in DOWNLOADABLE else [])]


def _device(call: Call) -> list[str]:
    """Precision and device of --type and --gpus."""
    kind = call.values["type"].removeprefix("torch.")
    precision = _TYPES.get(kind.removeprefix("cuda."))
    if precision is None:
        raise ValueError(
            f"type is {call.values['type']!r}; expected torch[.cuda].FloatTensor or torch[.cuda].HalfTensor."
        )
    device = _gpu(call) if kind.startswith("cuda.") else "cpu"
    if PROGRAMS[call.program] in ("landscape", "sharpness"):
        call.notices.extend(["measured in fp32."] if precision == "fp16" else [])
        return ["--device", device]
    if device == "cpu" and precision == "fp16":
        call.notices.append("fp16 on a CPU would silently be fp32; this uses bf16.")
        precision = "bf16"
    return [*(["--precision", precision] if "type" in call.given else []), "--device", device]


def _gpu(call: Call) -> str:
    """The first GPU of --gpus, or what there is instead, with a notice."""
    gpus = str(call.values["gpus"]).split(",")
    found = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if found == 0:
        call.notices.append("torch finds no CUDA device; this runs on the CPU.")
        return "cpu"
    if not gpus[0].isdigit():
        raise ValueError(f"--gpus is {call.values['gpus']!r}; expected numbers, such as 0 or 0,1.")
    first = int(gpus[0])
    device = f"cuda:{first if first < found else 0}"
    if first >= found:
        call.notices.append(f"--gpus {call.values['gpus']}: torch finds {found} CUDA device(s); this uses {device}.")
    elif len(gpus) > 1:
        call.notices.append(f"--gpus {call.values['gpus']}: one process uses one GPU; this uses {device}.")
    return device


def _run_to_resume(path: Path) -> Path | None:
    """The folder of the run of ours that a path names, None if it names something else."""
    folder = path.parent.parent if path.parent.name == "checkpoints" else path
    return folder if (folder / "config.json").is_file() else None


def _resume(call: Call, run: Path) -> list[str]:
    words = ["--resume", "--name", run.name, "--results-dir", str(run.parent)]
    for name in ("dataset", "model"):
        if name in call.given and is_user_code(call.given[name]):  # which must be named again
            words += [f"--{name}", call.given[name]]
        elif name in call.given:
            call.notices.append(f"--{name} is left out: a resumed run keeps its own.")
    return words


def _weights(call: Call) -> list[str]:
    """Weights and first epoch: of the original's file that --resume names, and of --start-epoch."""
    epoch, words = call.given.get("start_epoch"), []
    if call.values["resume"]:
        path = Path(call.values["resume"])
        file = path / "model_best.pth.tar" if path.is_dir() else path
        if not file.is_file():
            raise FileNotFoundError(
                f"{path} is neither a run nor a checkpoint; expected a folder or a model_best.pth.tar."
            )
        words = ["--weights", str(file)]
        epoch = read(file).epoch if epoch is None else epoch
    return [*words, *([] if epoch is None else ["--start-epoch", str(epoch)])]


def _option(name: str) -> Option:
    return next(option for option in OPTIONS if option.name == name)


def _word(option: Option, value: Any, command: str) -> list[str]:
    """An option of ours with a value."""
    ours = option.ours[command]
    if option.kind is bool:
        return [ours if value else f"--no-{ours.removeprefix('--')}"]
    return [ours, str(value)]
