import importlib
import sys

import pytest

from smoothout.train.user_code import call_with, is_user_code, load_function, parameters


@pytest.fixture
def package(tmp_path, monkeypatch):
    """A package on the path: a module with two functions, one that imports what is missing, names taken over."""
    folder = tmp_path / "users_package"
    folder.mkdir()
    (folder / "__init__.py").write_text("from users_package.parts import first\nfrom math import sqrt\nimport math\n")
    (folder / "parts.py").write_text("def first():\n    return 1\ndef _own():\n    return 2\nsecond = 2\n")
    (folder / "broken.py").write_text("import no_such_module_at_all\n")
    monkeypatch.syspath_prepend(tmp_path)
    importlib.invalidate_caches()
    for name in [name for name in sys.modules if name.partition(".")[0] == "users_package"]:
        monkeypatch.delitem(sys.modules, name)
    return "users_package"


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("net.py:model", True),
        ("/a/b/net.py:model", True),
        ("C:\\nets\\net.py:model", True),
        ("package.module:function", True),
        ("module:function", True),
        ("timm.models:create", True),
        ("torchvision:resnet18", False),
        ("timm:resnet18", False),
        ("resnet", False),
        ("", False),
    ],
)
def test_what_counts_as_a_users_code(name, expected):
    assert is_user_code(name) is expected


def test_functions_of_modules(package):
    assert load_function(f"{package}.parts:first")() == 1
    assert load_function(f"{package}:first")() == 1


def test_modules_and_functions_that_there_are_not(package):
    with pytest.raises(
        ValueError,
        match="'no_such_package.nets:f' names the module 'no_such_package', which is not found. Install it, put its "
        "folder on PYTHONPATH, or name its file",
    ):
        load_function("no_such_package.nets:f")
    with pytest.raises(ValueError, match=f"names the module '{package}.nets', which is not found"):
        load_function(f"{package}.nets:f")
    with pytest.raises(ValueError, match=f"'{package}.parts' has no function 'third'; it defines first[.]$"):
        load_function(f"{package}.parts:third")
    with pytest.raises(ValueError, match="has no function 'second'; it defines first"):
        load_function(f"{package}.parts:second")
    with pytest.raises(ValueError, match=f"'{package}' has no function '';.* first[.]$"):
        load_function(f"{package}:")
    with pytest.raises(ValueError, match="'nets/net:f' names no file and no module; expected FILE.py:function or pack"):
        load_function("nets/net:f")
    with pytest.raises(ModuleNotFoundError, match="no_such_module_at_all"):  # its own fault keeps its own words
        load_function(f"{package}.broken:f")


def test_files_and_functions_that_there_are_not(tmp_path):
    file = tmp_path / "net.py"
    with pytest.raises(FileNotFoundError, match=r"net.py:f' names the file '.*net.py', which is not there"):
        load_function(f"{file}:f")
    file.write_text("from math import sqrt\nsecond = 2\n")
    with pytest.raises(ValueError, match=r"net.py' has no function 'f'; it defines none[.]$"):
        load_function(f"{file}:f")


def test_a_file_finds_its_neighbours(tmp_path):
    (tmp_path / "users_neighbour.py").write_text("def three():\n    return 3\n")
    (tmp_path / "net.py").write_text("from users_neighbour import three\ndef f():\n    return three()\n")
    before = list(sys.path)
    assert load_function(f"{tmp_path}/net.py:f")() == 3
    assert sys.path == before


def test_what_a_function_takes():
    def positional(a, /, b, *rest, c=1):
        return a, b, c

    assert parameters(positional) == ["b", "c"]
    assert parameters(lambda a, **rest: a) is None
    assert call_with(lambda a, b=2: (a, b), a=1, c=3) == (1, 2)
    assert call_with(lambda a, **rest: (a, rest), a=1, c=3) == (1, {"c": 3})
