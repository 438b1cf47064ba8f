"""Small files in the form in which the data sets are published."""

import gzip
import hashlib
import pickle
import struct

import numpy as np
import torch
import torchvision.datasets


def write_idx(path, array):
    header = struct.pack(">HBB", 0, 8, array.ndim) + struct.pack(f">{array.ndim}i", *array.shape)
    raw = header + array.astype(np.uint8).tobytes()
    path.write_bytes(gzip.compress(raw) if path.suffix == ".gz" else raw)


def write_mnist(folder, value=0):
    folder.mkdir(parents=True, exist_ok=True)
    generator = np.random.default_rng(value)
    for name, count, suffix in (("train", 40, ".gz"), ("t10k", 20, "")):
        images = generator.integers(1, 256, (count, 28, 28))
        images[:, 0, 0] = value
        write_idx(folder / f"{name}-images-idx3-ubyte{suffix}", images)
        write_idx(folder / f"{name}-labels-idx1-ubyte{suffix}", np.arange(count) % 10)


def pickled_array(array):
    """Opcodes by which Python 2 pickled an array of bytes, names of that age included."""
    rows, columns = array.shape
    raw = array.tobytes()
    return b"".join(
        [
            b"cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\0\x85U\x01b\x87R(K\x01",
            b"M" + struct.pack("<H", rows) + b"M" + struct.pack("<H", columns),
            b"\x86cnumpy\ndtype\nU\x02u1K\0K\x01\x87R(K\x03U\x01|NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\0tb",
            b"\x89T" + struct.pack("<I", len(raw)) + raw + b"tb",
        ]
    )


def write_batch(path, images, labels, key):
    text = b"U" + bytes([len(key)]) + key.encode()
    numbers = b"](" + b"".join(b"K" + bytes([label]) for label in labels) + b"e"
    raw = b"\x80\x02}(U\x04data" + pickled_array(images.reshape(len(images), -1)) + text + numbers + b"u."
    path.write_bytes(raw)


def publish(monkeypatch, name, folder):
    """Make the generated files those that torchvision knows."""
    published = getattr(torchvision.datasets, name)
    monkeypatch.setattr(published, "meta", {**published.meta, "md5": md5(folder / published.meta["filename"])})
    for table in ("train_list", "test_list"):
        new = [[file, md5(folder / file)] for file, _ in getattr(published, table)]
        monkeypatch.setattr(published, table, new)


def md5(path):
    return hashlib.md5(path.read_bytes()).hexdigest()


def write_cifar(folder, name, seed=0):
    """Ten images a file; returns all images and labels, test last."""
    published = getattr(torchvision.datasets, name)
    key, classes = ("labels", 10) if name == "CIFAR10" else ("fine_labels", 100)
    folder.mkdir(parents=True)
    generator = np.random.default_rng(seed)
    images, labels = [], []
    for file, _ in published.train_list + published.test_list:
        images.append(generator.integers(0, 256, (10, 3, 32, 32), dtype=np.uint8))
        labels += generator.integers(0, classes, 10).tolist()
        write_batch(folder / file, images[-1], labels[-10:], key)
    (folder / published.meta["filename"]).write_bytes(pickle.dumps({published.meta["key"]: ["a", "b"]}, 2))
    return torch.from_numpy(np.concatenate(images)), labels


def write_stl10(folder):
    folder.mkdir(parents=True)
    generator = np.random.default_rng(0)
    images = {}
    for part, count in (("train", 8), ("test", 5)):
        images[part] = generator.integers(0, 256, (count, 3, 96, 96), dtype=np.uint8)
        (folder / f"{part}_X.bin").write_bytes(images[part].transpose(0, 1, 3, 2).tobytes())
        (folder / f"{part}_y.bin").write_bytes(bytes(1 + i % 10 for i in range(count)))
    return {part: torch.from_numpy(values) for part, values in images.items()}


def publish_stl10(monkeypatch, folder):
    published = torchvision.datasets.STL10
    for table in ("train_list", "test_list"):
        new = [
            [file, md5(folder / file) if (folder / file).exists() else "none"] for file, _ in getattr(published, table)
        ]
        monkeypatch.setattr(published, table, new)
