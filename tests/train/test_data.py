import gzip
import struct

import numpy as np
import pytest
import torch
from PIL import Image

from smoothout.train import data
from smoothout.train.config import Data
from smoothout.train.data import fashion_mnist, imagefolder, mnist1d
from smoothout.train.data.images import PadCropFlip, normaliser
from smoothout.train.data.splits import cut_holdout


def test_unknown_names_list_the_known():
    with pytest.raises(ValueError, match="'cifar'; expected one of fashion_mnist, imagefolder, mnist1d, or FILE.py"):
        data.load(Data("cifar"), 0)


# -- augmentation --------------------------------------------------------------------------------------------


def test_pad_crop_flip_does_what_it_says_to_each_image():
    images = torch.randint(1, 255, (64, 2, 5, 6), dtype=torch.uint8)
    found = PadCropFlip(pad=2, fill=0)(images)
    assert found.shape == images.shape
    assert found.dtype == torch.uint8
    assert found.is_contiguous()
    padded = torch.nn.functional.pad(images, (2, 2, 2, 2))
    places = set()
    for image, source in zip(found, padded, strict=True):
        fits = [
            (top, left, flip)
            for top in range(5)
            for left in range(5)
            for flip in (False, True)
            if torch.equal(image.flip(-1) if flip else image, source[:, top : top + 5, left : left + 6])
        ]
        assert len(fits) == 1
        places.add(fits[0])
    assert len(places) > 20
    assert len({flip for _, _, flip in places}) == 2


def test_augmentation_follows_torchs_seed():
    images = torch.randint(0, 255, (16, 1, 8, 8), dtype=torch.uint8)
    runs = []
    for seed in (1, 1, 2):
        torch.default_generator.manual_seed(seed)
        runs.append(PadCropFlip(2, 0)(images))
    assert torch.equal(runs[0], runs[1])
    assert not torch.equal(runs[0], runs[2])


def test_normaliser():
    images = torch.tensor([0, 255], dtype=torch.uint8).view(1, 2, 1, 1)
    assert normaliser((0.5, 0.25), (0.5, 0.5))(images).flatten().tolist() == [-1.0, 1.5]


def test_the_cut_is_by_seed_and_whole():
    train, held_out = cut_holdout(100, 0.2, seed=3)
    assert len(held_out) == 20
    assert sorted([*train.tolist(), *held_out.tolist()]) == list(range(100))
    assert not torch.equal(held_out, cut_holdout(100, 0.2, seed=4)[1])
    assert torch.equal(held_out, cut_holdout(100, 0.2, seed=3)[1])
    with pytest.raises(ValueError, match="holdout=0.1 of 3 training samples is 0; expected at least one"):
        cut_holdout(3, 0.1, seed=0)


# -- mnist1d -------------------------------------------------------------------------------------------------


def test_mnist1d_is_made_once_and_leaves_global_generators_alone(tmp_path, monkeypatch):
    monkeypatch.setattr(mnist1d, "TEST_SAMPLES", 300)
    np.random.seed(5)
    state = np.random.get_state()[1].copy()
    first = data.load(Data(data_dir=tmp_path, holdout=0.05), 0)
    assert (np.random.get_state()[1] == state).all()
    assert (len(first.train), len(first.holdout), len(first.test)) == (4000, 200, 300)
    assert first.input_shape == (40,)
    monkeypatch.setattr(mnist1d, "_generate", None)  # a second load reads files
    again = data.load(Data(data_dir=tmp_path, holdout=0.05), 1)
    assert torch.equal(first.train.inputs, again.train.inputs)
    assert not torch.equal(first.holdout.inputs[:100], first.test.inputs[:100])
    assert set(first.test.targets.tolist()) == set(range(10))


# -- fashion_mnist -------------------------------------------------------------------------------------------


def write_idx(path, array):
    header = struct.pack(">HBB", 0, 8, array.ndim) + struct.pack(f">{array.ndim}i", *array.shape)
    raw = header + array.astype(np.uint8).tobytes()
    path.write_bytes(gzip.compress(raw) if path.suffix == ".gz" else raw)


@pytest.fixture
def fashion(tmp_path):
    fashion_mnist._read.cache_clear()
    generator = np.random.default_rng(0)
    for name, count, suffix in (("train", 40, ".gz"), ("t10k", 20, "")):
        write_idx(tmp_path / f"{name}-images-idx3-ubyte{suffix}", generator.integers(0, 256, (count, 28, 28)))
        write_idx(tmp_path / f"{name}-labels-idx1-ubyte{suffix}", np.arange(count) % 10)
    yield tmp_path
    fashion_mnist._read.cache_clear()


def test_fashion_mnist_from_files_packed_or_not(fashion):
    found = data.load(Data("fashion_mnist", data_dir=fashion, holdout=0.25), 0)
    assert (len(found.train), len(found.holdout), len(found.test)) == (30, 10, 20)
    assert found.train.inputs.shape == (30, 1, 28, 28)
    assert found.test.targets.tolist() == [i % 10 for i in range(20)]
    assert isinstance(found.augment, PadCropFlip)
    plain = data.load(Data("fashion_mnist", data_dir=fashion, augment=False), 0)
    assert plain.augment(found.test.inputs) is found.test.inputs


def test_missing_and_broken_files(fashion, monkeypatch):
    monkeypatch.setattr(fashion_mnist, "DEBIAN", fashion / "nowhere")
    (fashion / "t10k-labels-idx1-ubyte").write_bytes(b"\0\0\x08\x01\0\0\0\x14short")
    with pytest.raises(ValueError, match="t10k-labels-idx1-ubyte is no IDX file of bytes, or cut short"):
        data.load(Data("fashion_mnist", data_dir=fashion), 0)
    (fashion / "t10k-labels-idx1-ubyte").unlink()
    with pytest.raises(FileNotFoundError, match="no file t10k-labels-idx1-ubyte or .*On Debian install the package"):
        data.load(Data("fashion_mnist", data_dir=fashion), 0)


# -- imagefolder ---------------------------------------------------------------------------------------------


def write_images(root, split, sizes, classes=("cat", "dog")):
    generator = np.random.default_rng(len(split))
    for number, name in enumerate(classes):
        (root / split / name).mkdir(parents=True)
        for index, size in enumerate(sizes):
            pixels = generator.integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
            pixels[0, 0] = number
            Image.fromarray(pixels).save(root / split / name / f"{index}.png")


@pytest.fixture
def tree(tmp_path):
    imagefolder._all_resident.cache_clear()
    return tmp_path


def test_images_of_one_size_stay_in_memory(tree):
    write_images(tree, "train", [(9, 8)] * 10)
    write_images(tree, "test", [(9, 8)] * 3)
    found = data.load(Data("imagefolder", data_dir=tree, holdout=0.2), 0)
    assert (len(found.train), len(found.holdout), len(found.test)) == (16, 4, 6)
    assert found.input_shape == (3, 8, 9)
    assert found.classes == 2
    assert torch.equal(found.test.inputs[:, 0, 0, 0].long(), found.test.targets)
    held = {bytes(image.flatten().tolist()) for image in found.holdout.inputs}
    assert not held & {bytes(image.flatten().tolist()) for image in found.train.inputs}


def test_where_val_and_test_are_both_there_val_is_the_hold_out(tree):
    for split, count in (("train", 4), ("val", 3), ("test", 2)):
        write_images(tree, split, [(8, 8)] * count)
    found = data.load(Data("imagefolder", data_dir=tree), 0)
    assert (len(found.train), len(found.holdout), len(found.test)) == (8, 6, 4)


def test_images_of_unequal_size_are_streamed(tree):
    write_images(tree, "train", [(20, 30), (40, 25), (32, 32), (33, 31), (50, 20)])
    write_images(tree, "val", [(20, 30)] * 2)
    found = data.load(Data("imagefolder", data_dir=tree, image_size=16, workers=0, holdout=0.2), 0)
    assert found.input_shape == (3, 16, 16)
    order = torch.tensor([3, 0, 5, 1, 7, 2, 6, 4])

    def read(sizes, augment):
        return torch.cat([x for x, _ in found.train.batches(sizes, order, augment=augment)])

    # A sample's augmentation depends on seed and sample, not on the batch it comes in.
    assert torch.equal(read([4, 4], 1), read([1, 5, 2], 1))
    assert not torch.equal(read([8], 1), read([8], 2))
    assert torch.equal(read([8], None), read([8], None))
    assert read([8], 1).shape == (8, 3, 16, 16)
    x, y = next(found.test.batches([4]))
    assert x.dtype == torch.uint8
    assert y.tolist() == [0, 0, 1, 1]


def test_trees_that_do_not_fit(tree):
    with pytest.raises(FileNotFoundError, match="has none of train, val and test; expected train/CLASS"):
        data.load(Data("imagefolder", data_dir=tree), 0)
    write_images(tree, "train", [(8, 8)])
    with pytest.raises(FileNotFoundError, match="has train of train, val and test"):
        data.load(Data("imagefolder", data_dir=tree), 0)
    write_images(tree, "val", [(8, 8)], classes=("cat", "fish"))
    with pytest.raises(ValueError, match="differ by dog, fish; expected the same sub-folders"):
        data.load(Data("imagefolder", data_dir=tree), 0)


# -- FILE.py:function ----------------------------------------------------------------------------------------

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
    with pytest.raises(TypeError, match=r"returned a tuple for 'train'; expected a pair of tensors"):
        data.load(Data(f"{file}:odd"), 0)
    with pytest.raises(TypeError, match="a Dataset for 'train' and no 'classes'"):
        data.load(Data(f"{file}:uncounted"), 0)
    with pytest.raises(ValueError, match="has no function 'other'; it defines tensors, Squares, datasets"):
        data.load(Data(f"{file}:other"), 0)
    with pytest.raises(FileNotFoundError, match="nothere.py', which is not there"):
        data.load(Data("nothere.py:f"), 0)
