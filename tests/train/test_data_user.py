import re

import numpy as np
import pytest
import torch
from torch.utils.data import Dataset

from smoothout.train import data
from smoothout.train.config import Data
from smoothout.train.data import user
from smoothout.train.data.splits import Resident, in_order

USER = """
import torch
from torch.utils.data import Dataset

def tensors(data_dir):
    x = torch.arange(40.0, dtype=torch.float64).view(20, 2)
    return {"train": (x, torch.arange(20, dtype=torch.int32) % 4), "test": (x[:6], torch.arange(6) % 4)}

class Squares(Dataset):
    def __len__(self):
        return 12
    def __getitem__(self, index):
        return torch.full((3, 4, 4), float(index)), index % 3

def datasets():
    return {"train": Squares(), "holdout": Squares(), "test": Squares(), "classes": 3}

def uncounted():
    return {"train": Squares(), "test": Squares()}

def wrong():
    return [1]

def odd():
    return {"train": (1, 2), "test": 3}
"""


def test_a_users_file_may_have_neighbours_and_dataclasses(tmp_path):
    (tmp_path / "neighbour.py").write_text("import torch\nX = torch.ones(10, 2)\n")
    file = tmp_path / "mine.py"
    file.write_text(
        "from __future__ import annotations\nfrom dataclasses import dataclass\nimport torch\nimport neighbour\n"
        "@dataclass\nclass Options:\n    count: int = 2\n"
        "def load():\n    y = torch.arange(10) % Options().count\n"
        "    return {'train': (neighbour.X, y), 'test': (neighbour.X, y)}\n"
    )
    assert data.load(Data(f"{file}:load"), 0).classes == 2


def test_data_of_a_users_function(tmp_path):
    file = tmp_path / "mine.py"
    file.write_text(USER)
    found = data.load(Data(f"{file}:tensors"), 0)
    assert (len(found.train), len(found.holdout), found.classes, found.input_shape) == (18, 2, 4, (2,))
    assert (found.train.inputs.dtype, found.train.targets.dtype) == (torch.float32, torch.int64)
    streamed = data.load(Data(f"{file}:datasets", workers=0), 0)
    assert (len(streamed.train), streamed.classes, streamed.input_shape) == (12, 3, (3, 4, 4))
    with pytest.raises(TypeError, match=r"wrong' returned list; expected a mapping with 'train' and 'test'"):
        data.load(Data(f"{file}:wrong"), 0)
    with pytest.raises(TypeError, match=r"odd' returned for 'train': a tuple; expected a pair \(inputs, classes\)"):
        data.load(Data(f"{file}:odd"), 0)
    with pytest.raises(TypeError, match="a Dataset for 'train' and no 'classes'"):
        data.load(Data(f"{file}:uncounted"), 0)
    with pytest.raises(ValueError, match="has no function 'other'; it defines tensors, Squares, datasets"):
        data.load(Data(f"{file}:other"), 0)
    with pytest.raises(FileNotFoundError, match="nothere.py', which is not there"):
        data.load(Data("nothere.py:f"), 0)


class Rows(Dataset):
    def __init__(self, *rows):
        self.rows = rows

    def __len__(self):
        return len(self.rows)

    def __getitem__(self, index):
        return self.rows[index]


@pytest.fixture
def load(monkeypatch):
    """Loads what a user's function would have returned."""

    def load(made, **settings):
        monkeypatch.setattr(user, "load_function", lambda name: lambda: made)
        return data.load(Data("f.py:g", **{"workers": 0, **settings}), 0)

    return load


PAIR = (torch.zeros(20, 3), torch.arange(20) % 4)


@pytest.mark.parametrize("kind", [tuple, list])
@pytest.mark.parametrize("dtype", [np.int8, np.uint8, np.int32, np.uint64, np.int64])
def test_arrays_will_do(load, kind, dtype):
    inputs = np.linspace(0, 1, 60).reshape(20, 3)
    inputs.flags.writeable = False
    targets = (np.arange(20) % 4).astype(dtype)[::-1]
    found = load({"train": kind([inputs, targets]), "test": kind([torch.zeros(2, 3), targets[:2]])}, holdout=0)
    assert found.train.inputs.dtype == torch.float32
    assert np.allclose(found.train.inputs.numpy(), inputs)
    assert found.train.targets.dtype == found.test.targets.dtype == torch.int64
    assert found.train.targets.tolist() == targets.tolist()
    assert (found.classes, found.input_shape, len(found.holdout)) == (4, (3,), 0)


def test_samples_of_a_dataset_may_be_arrays(load):
    rows = Rows(
        (np.zeros((1, 2)), np.int32(1)), (np.ones((1, 2)), 0), (np.ones((1, 2)), torch.tensor(2, dtype=torch.uint8))
    )
    found = load({"train": rows, "test": rows, "classes": np.int64(3)}, holdout=1 / 3)
    [(x, y)] = in_order(found.test)
    assert (x.dtype, y.dtype, y.tolist()) == (torch.float32, torch.int64, [1, 0, 2])
    assert (len(found.train), len(found.holdout), found.input_shape) == (2, 1, (1, 2))


def test_a_hold_out_that_is_given(load):
    made = {"train": PAIR, "holdout": PAIR, "test": PAIR}
    assert len(load(made).holdout) == 20
    assert len(load(made, holdout=0).holdout) == 0
    assert isinstance(load(made).holdout, Resident)


def test_bytes_and_tokens_stay_what_they_are(load):
    pixels = (np.zeros((20, 3, 4, 4), dtype=np.uint8), np.arange(20) % 2)
    tokens = (np.zeros((20, 7), dtype=np.int32), np.arange(20) % 2)
    assert load({"train": pixels, "test": pixels}).train.inputs.dtype == torch.uint8
    assert load({"train": tokens, "test": tokens}).train.inputs.dtype == torch.int32


@pytest.mark.parametrize(
    ("train", "error", "message"),
    [
        ((PAIR[0], PAIR[1][:19]), ValueError, "inputs of shape (20, 3) and classes of shape (19,); expected (samples"),
        (
            (PAIR[0], torch.zeros(20, 4).long()),
            ValueError,
            "inputs of shape (20, 3) and classes of shape (20, 4); expected (samples, ...) and (s",
        ),
        ((PAIR[0], PAIR[1] - 1), ValueError, "the class -1; expected 0 to 2, of 3 classes. Count classes from 0"),
        ((PAIR[0], PAIR[1].float()), TypeError, "classes of torch.float32; expected integers. Convert them, as by"),
        ((PAIR[0], PAIR[1] > 1), TypeError, "classes of torch.bool; expected integers"),
        ((PAIR[0].numpy(), np.array(["a"] * 20)), TypeError, "an array of <U1; expected numbers in native byte order"),
        ((PAIR[0][:0], PAIR[1][:0]), ValueError, "no samples; expected at least one. Leave 'holdout' out"),
        ([PAIR[0]], TypeError, "a list; expected a pair (inputs, classes) of tensors or arrays, or a map-style"),
        (PAIR[0], TypeError, "a Tensor; expected a pair (inputs, classes)"),
    ],
)
def test_pairs_that_do_not_fit(load, train, error, message):
    with pytest.raises(error, match=re.escape("'f.py:g' returned for 'train': " + message)):
        load({"train": train, "test": PAIR})


def test_classes_of_other_splits_and_numbers_of_classes(load):
    with pytest.raises(ValueError, match="for 'test': the class 4; expected 0 to 3, of 4 classes"):
        load({"train": PAIR, "test": (torch.zeros(1, 3), torch.tensor([4]))})
    with pytest.raises(ValueError, match="for 'train': the class 3; expected 0 to 2, of 3 classes"):
        load({"train": PAIR, "test": PAIR, "classes": 3})
    assert load({"train": PAIR, "test": PAIR, "classes": 7}).classes == 7
    with pytest.raises(ValueError, match="'classes' of 'f.py:g' is 0; expected a whole number >= 1"):
        load({"train": PAIR, "test": PAIR, "classes": 0})
    with pytest.raises(TypeError, match="returned \\['other', 'test', 'train'\\]; expected a mapping"):
        load({"train": PAIR, "test": PAIR, "other": PAIR})


@pytest.mark.parametrize(
    ("row", "error", "message"),
    [
        (("text", 0), TypeError, "sample 0 is a str; expected a tensor or an array. Convert it in the Dataset."),
        ((torch.zeros(2), 3), ValueError, "the class 3; expected 0 to 2"),
        ((torch.zeros(2), -1), ValueError, "the class -1; expected 0 to 2"),
        ((torch.zeros(2), 1.0), TypeError, "classes of torch.float64; expected integers"),
        ((torch.zeros(2), [1]), ValueError, "sample 0 has a class of shape (1,); expected a single integer"),
    ],
)
def test_samples_that_do_not_fit(load, row, error, message):
    with pytest.raises(error, match=re.escape(message)):
        load({"train": Rows(row), "test": Rows(row), "classes": 3}, holdout=0)
