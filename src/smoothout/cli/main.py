"""``smoothout COMMAND``: finds the command, and turns errors into a line."""

import importlib
import os
import sys
import traceback
from collections.abc import Sequence
from pathlib import Path

import smoothout
from smoothout.launch import launched

COMMANDS = {
    "train": "train a network and evaluate it after every epoch",
    "evaluate": "evaluate a checkpoint, with or without weight noise",
    "compare": "train several arms with several seeds and compare them",
    "diagnose": "say why a run does worse than it should, and whether noise is what it lacks",
    "scan": "show what noise of which strength does to a checkpoint, and which strengths are worth trying",
    "tune": "search for settings on the hold-out, with and without noise at the same budget",
    "sharpness": "measure how sharp the minima of checkpoints are, side by side",
    "landscape": "draw the loss along a line or over a plane through checkpoints",
    "report": "turn runs and comparisons into a page to open in a browser, or into figures for a paper",
}
_EXTRAS = (
    "accelerate",
    "jinja2",
    "matplotlib",
    "mnist1d",
    "numpy",
    "optuna",
    "PIL",
    "plotly",
    "psutil",
    "pytorch_optimizer",
    "rich",
    "safetensors",
    "scipy",
    "torchvision",
    "tyro",
)
#: Commands that share their work where a launcher starts several processes; train has its own way.
SPREAD = ("sharpness", "landscape")
_OWN_ERRORS = (ValueError, TypeError, OSError, FloatingPointError, RuntimeError)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command; returns the exit status."""
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    command = arguments[0] if arguments else "--help"
    if command in ("-h", "--help"):
        print(_usage())
        return 0
    if command == "--version":
        print(f"smoothout {smoothout.__version__}")
        return 0
    if command not in COMMANDS:
        print(f"smoothout: {command!r} is no command; expected {', '.join(COMMANDS)}.", file=sys.stderr)
        return 2
    return _run(command, arguments[1:])


def _run(command: str, arguments: list[str]) -> int:
    """Run one command; an error of a kind that this package raises itself becomes a line."""
    try:
        return _shared(command, arguments)
    except ModuleNotFoundError as error:
        if (error.name or "").split(".")[0] not in _EXTRAS:
            raise
        print(f"smoothout: {error.name} is missing; pip install 'smoothout[all]'.", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("smoothout: interrupted.", file=sys.stderr)
        return 130
    except _OWN_ERRORS as error:
        if not _raised_here(error) or os.environ.get("SMOOTHOUT_TRACEBACK"):
            raise
        print(f"smoothout {command}{_which_process()}: {error}", file=sys.stderr, flush=True)
        _tell_launcher(error)
        return 2


def _which_process() -> str:
    """Of several that a launcher such as torchrun started."""
    here = launched()
    return f" (process {here.rank} of {here.size})" if here.several else ""


def _tell_launcher(error: Exception) -> None:
    """Let torchrun, which ends the other processes, name the error in its own report."""
    if "TORCHELASTIC_ERROR_FILE" in os.environ:
        from torch.distributed.elastic.multiprocessing.errors import get_error_handler

        get_error_handler().record_exception(error)


def _shared(command: str, arguments: list[str]) -> int:
    """Run a command; in several processes the first runs it and the others do parts of its work."""
    if command == "train" or not launched().several:
        return _alone(command, arguments)
    if command not in SPREAD:
        launched().refuse_several(command)
    from smoothout.train import spread

    spread.meet()
    if not launched().first:
        return spread.follow(_described)
    wait = False
    try:
        status = _alone(command, arguments)
        wait = True
    except SystemExit:  # after --help, or a mistake in the options
        wait = True
        raise
    finally:
        spread.dismiss(wait=wait)
    return status


def _alone(command: str, arguments: list[str]) -> int:
    return int(importlib.import_module(f"smoothout.cli.{command}").run(arguments))


def _described(error: Exception) -> str:
    """What another process is told of an error: a line, or all of it where it is not this package's own."""
    if isinstance(error, _OWN_ERRORS) and _raised_here(error):
        return str(error)
    return "".join(traceback.format_exception(error))


def _raised_here(error: BaseException) -> bool:
    """Whether this package raised the error; others, such as those of a user's code, keep their traceback."""
    frames = traceback.extract_tb(error.__traceback__)
    return bool(frames) and Path(frames[-1].filename).is_relative_to(Path(smoothout.__file__).parent)


def _usage() -> str:
    lines = ["usage: smoothout COMMAND [options]", "", "commands:"]
    lines += [f"  {name:<10} {text}" for name, text in COMMANDS.items()]
    lines += ["", "smoothout COMMAND --help lists the options of a command; --version prints the version."]
    return "\n".join(lines)
