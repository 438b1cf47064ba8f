"""Published data sets, from generated files in the form in which they are published."""

import gzip
import os
import pickle
import re
import shutil
import sys

import pytest
import torch
import torchvision.datasets
from published_files import md5, publish, publish_stl10, write_cifar, write_mnist, write_stl10
from torchvision.transforms import v2

from smoothout.train import data
from smoothout.train.config import Data
from smoothout.train.data import cifar, files, mnist, stl10
from smoothout.train.data.images import PadCropFlip


@pytest.fixture(autouse=True)
def nothing_kept():
    for module in (cifar, mnist, stl10):
        module._read.cache_clear()
    yield
    for module in (cifar, mnist, stl10):
        module._read.cache_clear()


def padded_pieces(images, augment, side):
    """Whether every augmented image is some crop, flipped or not, of its padded image."""
    padded = torch.nn.functional.pad(images, (augment.pad,) * 4, value=augment.fill)
    for image, source in zip(augment(images), padded, strict=True):
        windows = source.unfold(1, side, 1).unfold(2, side, 1).movedim(0, 2).flatten(0, 1)
        assert any((windows == each).flatten(1).all(1).any() for each in (image, image.flip(-1)))


def parts(found):
    return [{bytes(x.flatten().tolist()) for x in split.inputs} for split in (found.train, found.holdout, found.test)]


# -- mnist, fashion_mnist ------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["mnist", "fashion_mnist"])
def test_idx_files_packed_or_not(name, tmp_path):
    write_mnist(tmp_path)
    found = data.load(Data(name, data_dir=tmp_path, holdout=0.25), 0)
    assert (len(found.train), len(found.holdout), len(found.test)) == (30, 10, 20)
    assert found.train.inputs.shape == (30, 1, 28, 28)
    assert (found.input_shape, found.classes) == ((1, 28, 28), 10)
    assert found.test.targets.tolist() == [i % 10 for i in range(20)]
    assert (found.train.inputs.dtype, found.train.targets.dtype) == (torch.uint8, torch.int64)
    train, held_out, test = parts(found)
    assert not train & held_out
    assert not train & test
    assert found.augment == PadCropFlip(pad=2, fill=0)
    padded_pieces(found.test.inputs, found.augment, 28)
    assert torch.equal(found.normalise(found.test.inputs), (found.test.inputs / 255 - 0.5) / 0.5)
    plain = data.load(Data(name, data_dir=tmp_path, augment=False), 0)
    assert plain.augment(found.test.inputs) is found.test.inputs


@pytest.mark.parametrize(("name", "published"), [("mnist", "MNIST"), ("fashion_mnist", "FashionMNIST")])
def test_where_idx_files_are_searched(name, published, tmp_path):
    places = [f"{name}/{published}/raw", name, f"{published}/raw", "."]
    for number, place in reversed(list(enumerate(places, 1))):  # the earlier in the list, the more it counts
        write_mnist(tmp_path / place, value=number)
        mnist._read.cache_clear()
        found = data.load(Data(name, data_dir=tmp_path), 0)
        assert found.test.inputs[0, 0, 0, 0] == number


def test_the_folder_may_come_from_the_environment(tmp_path, monkeypatch):
    write_mnist(tmp_path / "all" / "mnist")
    monkeypatch.setenv("SMOOTHOUT_DATA", str(tmp_path / "all"))
    assert len(data.load(Data("mnist", holdout=0), 0).train) == 40
    monkeypatch.delenv("SMOOTHOUT_DATA")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "all").rename(tmp_path / "data")
    mnist._read.cache_clear()
    assert len(data.load(Data("mnist", holdout=0), 0).train) == 40


def test_idx_files_that_are_missing_or_broken(tmp_path, monkeypatch):
    monkeypatch.setattr(mnist, "DEBIAN", tmp_path / "nowhere")
    write_mnist(tmp_path)
    labels = tmp_path / "t10k-labels-idx1-ubyte"
    for raw in (b"\0\0\x08\x01\0\0\0\x14short", b"", b"\0\0\x08", b"\0\0\x0d\x01\0\0\0\x01x"):
        labels.write_bytes(raw)
        message = rf"t10k-labels-idx1-ubyte is no IDX file of bytes in 1 dimensions, or cut short \({len(raw)} bytes\)"
        with pytest.raises(ValueError, match=message):
            data.load(Data("mnist", data_dir=tmp_path), 0)
    labels.unlink()
    message = (
        "expected the files train-images.*, t10k-labels-idx1-ubyte .or .gz. in one of .*/MNIST/raw.*--download, or"
    )
    with pytest.raises(FileNotFoundError, match="mnist: " + message):
        data.load(Data("mnist", data_dir=tmp_path), 0)
    with pytest.raises(FileNotFoundError, match=message.replace("/MNIST", "/FashionMNIST") + ".*On Debian the package"):
        data.load(Data("fashion_mnist", data_dir=tmp_path), 0)


def test_images_are_resized_once(tmp_path):
    write_mnist(tmp_path)
    found = data.load(Data("mnist", data_dir=tmp_path, input_size=56), 0)
    assert found.input_shape == (1, 56, 56)
    assert found.train.inputs.shape[2:] == found.holdout.inputs.shape[2:] == found.test.inputs.shape[2:] == (56, 56)
    assert found.augment == PadCropFlip(pad=4, fill=0)
    expected = v2.functional.resize(
        data.load(Data("mnist", data_dir=tmp_path), 0).test.inputs, [56, 56], antialias=True
    )
    assert torch.equal(found.test.inputs, expected)


# -- cifar10, cifar100 ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("inside", ["", "NAME"])
@pytest.mark.parametrize(("name", "published"), [("cifar10", "CIFAR10"), ("cifar100", "CIFAR100")])
def test_cifar(name, published, inside, tmp_path, monkeypatch):
    place = tmp_path / inside.replace("NAME", name) / getattr(torchvision.datasets, published).base_folder
    images, labels = write_cifar(place, published)
    publish(monkeypatch, published, place)
    found = data.load(Data(name, data_dir=tmp_path, holdout=0), 0)
    assert torch.equal(torch.cat([found.train.inputs, found.test.inputs]), images)
    assert torch.cat([found.train.targets, found.test.targets]).tolist() == labels
    assert len(found.test) == 10
    assert (found.input_shape, found.classes) == ((3, 32, 32), 10 if name == "cifar10" else 100)
    # As torchvision reads them.
    theirs = getattr(torchvision.datasets, published)(tmp_path / inside.replace("NAME", name), train=False)
    assert torch.equal(found.test.inputs, torch.from_numpy(theirs.data).permute(0, 3, 1, 2))
    assert found.test.targets.tolist() == theirs.targets

    assert found.augment == PadCropFlip(pad=4, fill=127)
    padded_pieces(found.test.inputs, found.augment, 32)
    grey = torch.full((1, 3, 1, 1), 128, dtype=torch.uint8)
    expected = [(128 / 255 - m) / s for m, s in ((0.485, 0.229), (0.456, 0.224), (0.406, 0.225))]
    assert found.normalise(grey).flatten().tolist() == pytest.approx(expected)
    cut = data.load(Data(name, data_dir=tmp_path, holdout=0.2), 0)
    train, held_out, _ = parts(cut)
    assert len(held_out) == len(found.train) / 5
    assert not train & held_out
    assert train | held_out == parts(found)[0]


class Malicious:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


@pytest.mark.parametrize("file", ["data_batch_3", "test_batch"])
def test_only_published_pickles_are_unpickled(file, tmp_path, monkeypatch):
    place = tmp_path / "cifar-10-batches-py"
    write_cifar(place, "CIFAR10")
    publish(monkeypatch, "CIFAR10", place)
    expected = md5(place / file)
    (place / file).write_bytes(pickle.dumps(Malicious(tmp_path / "harm")))
    unpickled = []
    monkeypatch.setattr(
        cifar.pickle, "loads", lambda raw, make=pickle.loads, **kw: unpickled.append(1) or make(raw, **kw)
    )
    message = f"{place / file} has the MD5 checksum {md5(place / file)}; expected {expected}, that of the published"
    with pytest.raises(
        ValueError, match=re.escape(message) + ".*Nothing of it was used. Delete it, and fetch it .*--download"
    ):
        data.load(Data("cifar10", data_dir=tmp_path), 0)
    assert unpickled == []
    assert not (tmp_path / "harm").exists()
    pickle.loads((place / file).read_bytes())  # it would have done harm
    assert (tmp_path / "harm").is_dir()


def test_a_download_that_changes_nothing_unpickles_nothing(tmp_path, monkeypatch):
    place = tmp_path / "cifar-10-batches-py"
    write_cifar(place, "CIFAR10")
    publish(monkeypatch, "CIFAR10", place)
    (place / "data_batch_1").unlink()
    (place / "test_batch").write_bytes(pickle.dumps(Malicious(tmp_path / "harm")))
    monkeypatch.setattr(torchvision.datasets.CIFAR10, "download", lambda self: None)
    with pytest.raises(RuntimeError, match="cifar10 could not be fetched into .*: Dataset not found or corrupted"):
        data.load(Data("cifar10", data_dir=tmp_path, download=True), 0)
    assert not (tmp_path / "harm").exists()


def test_the_published_checksums_are_those_of_the_real_files(tmp_path):
    # Without replaced tables, no generated file may pass.
    write_cifar(tmp_path / "cifar-100-python", "CIFAR100")
    with pytest.raises(ValueError, match="/train has the MD5 checksum .*; expected 16019d7e3df5f24257cddd939b257f8d"):
        data.load(Data("cifar100", data_dir=tmp_path), 0)


def test_cifar_that_is_not_there(tmp_path):
    message = (
        "cifar10: expected the files data_batch_1, .*, test_batch in one of the folders .*/cifar10/cifar-10-batches-py"
        ", .*/cifar-10-batches-py. Fetch them by --download, or name their folder by --data-dir."
    )
    with pytest.raises(FileNotFoundError, match=message):
        data.load(Data("cifar10", data_dir=tmp_path), 0)


# -- stl10 ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("inside", ["", "stl10"])
def test_stl10(inside, tmp_path, monkeypatch):
    place = tmp_path / inside / "stl10_binary"
    images = write_stl10(place)
    publish_stl10(monkeypatch, place)
    found = data.load(Data("stl10", data_dir=tmp_path, holdout=0), 0)
    assert torch.equal(found.train.inputs, images["train"])
    assert torch.equal(found.test.inputs, images["test"])
    assert found.train.targets.tolist() == list(range(8))
    assert (found.input_shape, found.classes) == ((3, 96, 96), 10)
    assert found.augment == PadCropFlip(pad=12, fill=127)
    padded_pieces(found.test.inputs[:2], found.augment, 96)
    assert data.load(Data("stl10", data_dir=tmp_path, input_size=48), 0).augment == PadCropFlip(pad=6, fill=127)
    (place / "test_y.bin").write_bytes(b"\1" * 5)
    stl10._read.cache_clear()
    with pytest.raises(ValueError, match="test_y.bin has the MD5 checksum"):
        data.load(Data("stl10", data_dir=tmp_path), 0)


# -- digits --------------------------------------------------------------------------------------------------


def test_digits():
    import sklearn.datasets

    made = sklearn.datasets.load_digits()
    found = data.load(Data("digits"), 0)
    assert (len(found.train), len(found.holdout), len(found.test)) == (1293, 144, 360)
    assert (found.input_shape, found.classes) == ((1, 8, 8), 10)
    splits = (found.train, found.holdout, found.test)
    inputs = torch.cat([found.normalise(found.augment(split.inputs)) for split in splits]).flatten(1)
    published = (torch.from_numpy(made.images).float().flatten(1) / 16 - 0.5) / 0.5
    together = torch.cat([inputs, torch.cat([split.targets for split in splits])[:, None]], 1)
    theirs = torch.cat([published, torch.from_numpy(made.target)[:, None]], 1)
    assert sorted(together.tolist()) == sorted(theirs.tolist())
    other = data.load(Data("digits"), 1)
    assert torch.equal(other.test.inputs, found.test.inputs)
    assert not torch.equal(other.holdout.inputs, found.holdout.inputs)
    assert found.test.targets.bincount(minlength=10).min() > 20


def test_digits_resized():
    small, large = (data.load(Data("digits", input_size=side), 0) for side in (None, 16))
    assert large.input_shape == (1, 16, 16)
    halved = torch.nn.functional.avg_pool2d(large.normalise(large.test.inputs), 2)
    assert (halved - small.normalise(small.test.inputs)).abs().mean() < 0.15


def test_digits_without_scikit_learn(monkeypatch):
    from smoothout.train.data import digits

    digits._read.cache_clear()
    monkeypatch.setitem(sys.modules, "sklearn.datasets", None)
    with pytest.raises(ModuleNotFoundError, match="come with scikit-learn, which is not installed. Run: pip install"):
        data.load(Data("digits"), 0)


# -- download ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("name", "published"), [("mnist", "MNIST"), ("fashion_mnist", "FashionMNIST")])
def test_download_of_idx_files(name, published, tmp_path, monkeypatch):
    monkeypatch.setattr(mnist, "DEBIAN", tmp_path / "nowhere")
    fetched = []

    def download(self):
        fetched.append(self.raw_folder)
        write_mnist(tmp_path / "new" / published / "raw")
        for packed in (tmp_path / "new" / published / "raw").glob("*.gz"):
            packed.with_suffix("").write_bytes(gzip.decompress(packed.read_bytes()))

    monkeypatch.setattr(getattr(torchvision.datasets, published), "download", download)
    for _ in range(2):  # the second time it is there
        assert len(data.load(Data(name, data_dir=tmp_path / "new", download=True), 0).test) == 20
    assert fetched == [str(tmp_path / "new" / published / "raw")]


@pytest.mark.parametrize(("name", "samples"), [("CIFAR10", 10), ("CIFAR100", 10), ("STL10", 5)])
def test_download_of_cifar_and_stl10(name, samples, tmp_path, monkeypatch):
    published = getattr(torchvision.datasets, name)
    elsewhere = tmp_path / "elsewhere" / published.base_folder
    if name == "STL10":
        write_stl10(elsewhere)
        publish_stl10(monkeypatch, elsewhere)
    else:
        write_cifar(elsewhere, name)
        publish(monkeypatch, name, elsewhere)
    fetched = []

    def download(self):
        fetched.append(self.root)
        shutil.copytree(elsewhere, tmp_path / "new" / published.base_folder)

    monkeypatch.setattr(published, "download", download)
    for _ in range(2):  # the second time it is there
        assert len(data.load(Data(name.lower(), data_dir=tmp_path / "new", download=True), 0).test) == samples
    assert fetched == [str(tmp_path / "new")]


def test_download_that_fails(tmp_path, monkeypatch):
    def download(self):
        raise OSError("no route to host.")

    monkeypatch.setattr(torchvision.datasets.CIFAR10, "download", download)
    message = (
        f"cifar10 could not be fetched into {tmp_path}: no route to host. Check the network and the folder, or put"
    )
    with pytest.raises(RuntimeError, match=message):
        data.load(Data("cifar10", data_dir=tmp_path, download=True), 0)


def test_what_can_be_fetched_is_known():
    assert set(files.DOWNLOADABLE) < set(data.DATA_SETS)
    assert all(hasattr(torchvision.datasets, name) for name in files.DOWNLOADABLE.values())
