"""Functions that a user names as FILE.py:function or package.module:function.

Only a name given on the command line is ever run.
"""

import importlib
import importlib.util
import inspect
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

from smoothout.train.config import Settings

LIBRARIES = ("torchvision", "timm")  # torchvision:NAME and timm:NAME are models of these
# Arguments by which their models fetch weights or open files.
_FETCHING = {"weights", "weights_backbone", "pretrained", "pretrained_cfg", "pretrained_cfg_overlay", "checkpoint_path"}


def is_user_code(name: str) -> bool:
    """Whether a name is of the form FILE.py:function or package.module:function."""
    return ":" in name and name.partition(":")[0] not in LIBRARIES


def named_again(settings: Settings) -> dict[str, str]:
    """What a stored config must not decide alone, by option: code that would run, and weights that would be fetched.

    The user names it again, or it is refused.
    """
    stored = {"dataset": settings.data.dataset, "model": settings.network.model}
    found = {option: name for option, name in stored.items() if is_user_code(name)}
    library = settings.network.model.partition(":")[0] in LIBRARIES
    if library and any(key in _FETCHING for key in settings.network.arguments):
        found["model_config"] = settings.network.model_config
    return found


def load_function(name: str) -> Callable[..., Any]:
    """Run FILE.py, or import package.module, and return its function.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If there is no such module, or no such function in it.
    """
    source, _, function = name.rpartition(":")
    module = _run_file(name, Path(source)) if source.endswith(".py") else _import(name, source)
    found: Callable[..., Any] | None = getattr(module, function, None)
    if not callable(found):
        raise ValueError(f"{source!r} has no function {function!r}; it defines {', '.join(_own(module)) or 'none'}.")
    return found


def _run_file(name: str, path: Path) -> ModuleType:
    if not path.is_file():
        raise FileNotFoundError(f"{name!r} names the file {str(path)!r}, which is not there. Give its path.")
    spec = importlib.util.spec_from_file_location(f"smoothout_user_{path.stem}", path)
    if spec is None or spec.loader is None:
        raise ImportError(f"{str(path)!r} cannot be loaded as Python; expected FILE.py:function.")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # where dataclasses and pickle look for it
    sys.path.insert(0, str(path.parent.resolve()))  # so that the file finds its neighbours
    try:
        spec.loader.exec_module(module)
    finally:
        sys.path.pop(0)
    return module


def _import(name: str, module: str) -> ModuleType:
    if not all(part.isidentifier() for part in module.split(".")):
        raise ValueError(f"{name!r} names no file and no module; expected FILE.py:function or package.module:function.")
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{module}.".startswith(f"{error.name}."):
            raise  # the module is there, something that it imports is not
        raise ValueError(
            f"{name!r} names the module {error.name!r}, which is not found. Install it, put its folder on PYTHONPATH, "
            f"or name its file: FILE.py:function."
        ) from None


def _own(module: ModuleType) -> list[str]:
    """What a module, or the package that it belongs to, defines for others to call."""
    package = module.__name__.partition(".")[0]
    return [
        name
        for name, value in vars(module).items()
        if callable(value)
        and not name.startswith("_")
        and str(getattr(value, "__module__", "")).partition(".")[0] == package
    ]


def parameters(function: Callable[..., Any]) -> list[str] | None:
    """Names of the keyword arguments that a function takes; None if it takes any."""
    found = inspect.signature(function).parameters.values()
    if any(parameter.kind is parameter.VAR_KEYWORD for parameter in found):
        return None
    return [p.name for p in found if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)]


def call_with(function: Callable[..., Any], **arguments: Any) -> Any:
    """Call a function with those of the arguments that it takes."""
    taken = parameters(function)
    return function(**{name: value for name, value in arguments.items() if taken is None or name in taken})
