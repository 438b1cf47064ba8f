"""Functions that a user names as FILE.py:function. Only a name given on the command line is ever run."""

import importlib.util
import inspect
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any


def is_user_code(name: str) -> bool:
    """Whether a name is of the form FILE.py:function."""
    return ".py:" in name


def load_function(name: str) -> Callable[..., Any]:
    """Run FILE.py and return its function.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If it defines no such function.
    """
    file, _, function = name.rpartition(":")
    path = Path(file)
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
    found = getattr(module, function, None)
    if not callable(found):
        own = [key for key, value in vars(module).items() if getattr(value, "__module__", "") == module.__name__]
        raise ValueError(f"{str(path)!r} has no function {function!r}; it defines {', '.join(own) or 'none'}.")
    return found  # type: ignore[no-any-return]


def call_with(function: Callable[..., Any], **arguments: Any) -> Any:
    """Call a function with those of the arguments that it takes."""
    parameters = inspect.signature(function).parameters.values()
    if any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters):
        return function(**arguments)
    taken = {parameter.name for parameter in parameters}
    return function(**{name: value for name, value in arguments.items() if name in taken})
