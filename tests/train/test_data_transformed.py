"""A model's own transforms in place of the data set's."""

import random
import re

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import Dataset
from torchvision import transforms

from smoothout.large_batch import partition
from smoothout.noise.philox import fold
from smoothout.train import data
from smoothout.train.config import Data
from smoothout.train.data import imagefolder
from smoothout.train.data.images import PadCropFlip
from smoothout.train.data.splits import DataSet, Resident, Streamed, as_is, in_order


def jitter(image):
    """Draws from the three generators that transforms use."""
    values = torch.tensor([random.random(), np.random.rand(), float(torch.rand(()))])
    return values, image


def push(pair):
    values, image = pair
    return transforms.functional.to_tensor(image) + values.float().mean()


TRANSFORMS = {
    "train": transforms.Compose([transforms.RandomCrop(6), transforms.RandomHorizontalFlip(), jitter, push]),
    "eval": transforms.Compose([transforms.Resize(10), transforms.CenterCrop(6), transforms.ToTensor()]),
}


def states():
    numpy = np.random.get_state()
    return torch.default_generator.get_state().tolist(), random.getstate(), numpy[1].tolist(), numpy[2]


@pytest.fixture(params=["grey", "colour", "files"])
def made(request, tmp_path):
    """A data set of 20, 5 and 4 images, and their pictures."""
    generator = np.random.default_rng(0)
    channels = () if request.param == "grey" else (3,)
    if request.param != "files":
        pictures = [Image.fromarray(generator.integers(0, 256, (9, 8, *channels), dtype=np.uint8)) for _ in range(29)]
        inputs = torch.from_numpy(np.stack([np.asarray(picture) for picture in pictures]))
        inputs = inputs.unsqueeze(1) if request.param == "grey" else inputs.permute(0, 3, 1, 2)
        splits = [
            Resident(*part) for part in zip(*(x.split([20, 5, 4]) for x in (inputs, torch.arange(29) % 3)), strict=True)
        ]
        return DataSet(*splits, tuple(inputs.shape[1:]), 3, augment=PadCropFlip(2, 0)), [
            pictures[:20],
            pictures[20:25],
            pictures[25:],
        ]
    imagefolder.scan.cache_clear()
    for split, counts in (("train", (12, 13)), ("val", (2, 2))):
        for name, count in zip("ab", counts, strict=True):
            (tmp_path / split / name).mkdir(parents=True)
            for index in range(count):
                size = generator.integers(8, 20, 2)
                pixels = generator.integers(0, 256, (*size, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(tmp_path / split / name / f"{index:02}.png")
    found = data.load(Data("imagenet", data_dir=tmp_path, holdout=0.2), 0)
    files = {split: sorted((tmp_path / split).glob("*/*.png")) for split in ("train", "val")}
    pictures = [
        [Image.open(files["train"][index]).copy() for index in found.train.indices],
        [Image.open(files["train"][index]).copy() for index in found.holdout.indices],
        [Image.open(path).copy() for path in files["val"]],
    ]
    return found, pictures


def place(split, index):
    """The number of a sample that its augmentation depends on."""
    return int(split.indices[index])


@pytest.mark.parametrize("workers", [0, 2])
def test_it_is_a_loop_over_pictures(made, workers):
    dataset, pictures = made
    found = dataset.transformed(TRANSFORMS, augment=True, workers=workers)
    channels = len(TRANSFORMS["eval"](pictures[0][0]))
    assert found.input_shape == (channels, 6, 6)
    assert found.classes == dataset.classes
    assert found.normalise is as_is
    assert found.augment is as_is

    np.random.seed(3)
    random.seed(3)
    before = states()
    order = torch.randperm(20, generator=torch.Generator().manual_seed(1))
    trained = [x for x, _ in found.train.batches(partition(20, 6), order, augment=11)]
    seen = [
        [torch.cat(part) for part in zip(*in_order(split), strict=True)]
        for split in (found.train, found.holdout, found.test)
    ]
    assert states() == before
    for (x, y), split, expected in zip(seen, (dataset.train, dataset.holdout, dataset.test), pictures, strict=True):
        assert x.dtype == torch.float32
        assert torch.equal(x, torch.stack([TRANSFORMS["eval"](picture) for picture in expected]))
        targets = (
            split.targets if isinstance(split, Resident) else torch.tensor([split.samples[i][1] for i in split.indices])
        )
        assert torch.equal(y, targets)
    slow = []
    for index in order.tolist():
        seed = fold(11, place(found.train, index)) >> 1
        torch.default_generator.manual_seed(seed)
        random.seed(seed)
        np.random.seed(seed % 2**32)
        slow.append(TRANSFORMS["train"](pictures[0][index]))
    assert torch.equal(torch.cat(trained), torch.stack(slow))
    assert [len(x) for x in trained] == [6, 6, 6, 2]


def test_without_augmentation_training_takes_the_evaluations_transform(made):
    found = made[0].transformed(TRANSFORMS, augment=False, workers=0)
    [(trained, _)] = in_order(found.train, augment=11)
    [(plain, _)] = in_order(found.train)
    assert torch.equal(trained, plain)


def test_generators_are_left_alone_between_batches_and_after_a_break():
    images = torch.randint(0, 256, (8, 3, 9, 9), dtype=torch.uint8)
    split = Resident(images, torch.arange(8))
    found = DataSet(split, split, split, (3, 9, 9), 8).transformed(TRANSFORMS, augment=True, workers=0)
    before = states()
    batches = found.train.batches([3, 3, 2], augment=1)
    next(batches)
    assert states() == before
    batches.close()
    assert states() == before

    def fails(image):
        torch.rand(())
        random.random()
        raise RuntimeError("no")

    with pytest.raises(ValueError, match=r"input_transform.'train'. failed on a Image: RuntimeError: no. Images come"):
        DataSet(split, split, split, (3, 9, 9), 8).transformed({**TRANSFORMS, "train": fails}, augment=True, workers=0)
    assert states() == before


def test_seeds_and_samples_tell_augmentations_apart():
    images = torch.randint(0, 256, (1, 3, 9, 9), dtype=torch.uint8).expand(8, -1, -1, -1)
    split = Resident(images, torch.arange(8))
    found = DataSet(split, split, split, (3, 9, 9), 8).transformed(TRANSFORMS, augment=True, workers=0)
    first, again, other = (next(in_order(found.train, augment=seed))[0] for seed in (1, 1, 2))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert len({tuple(x.flatten().tolist()) for x in first}) == 8
    # The global generators have no say.
    torch.default_generator.manual_seed(99)
    assert torch.equal(first, next(in_order(found.train, augment=1))[0])


class Ramps(Dataset):
    def __len__(self):
        return 6

    def __getitem__(self, index):
        return torch.full((2, 5), float(index)), index % 2


def test_what_is_no_picture_comes_as_it_is():
    double = {"train": lambda x: 2 * x, "eval": lambda x: (x - 1).double()}
    signals = Resident(torch.arange(12.0).view(6, 2), torch.arange(6))
    found = DataSet(signals, signals, signals, (2,), 6).transformed(double, augment=True, workers=0)
    [(x, y)] = in_order(found.test)
    assert x.dtype == torch.float32
    assert torch.equal(x, signals.inputs - 1)
    assert torch.equal(y, signals.targets)
    assert torch.equal(next(in_order(found.train, augment=0))[0], 2 * signals.inputs)

    ramps = Streamed(Ramps(), torch.tensor([4, 1]), as_is, as_is, workers=0)
    found = DataSet(ramps, ramps, ramps, (2, 5), 2).transformed(double, augment=True, workers=0)
    [(x, _)] = in_order(found.test)
    assert x[:, 0, 0].tolist() == [3.0, 0.0]
    assert found.input_shape == (2, 5)


def test_an_empty_hold_out_stays_empty(made):
    dataset, _ = made
    empty = DataSet(dataset.train, dataset.train.take(torch.arange(0)), dataset.test, dataset.input_shape, 3)
    found = empty.transformed(TRANSFORMS, augment=True, workers=0)
    assert len(found.holdout) == 0
    assert list(in_order(found.holdout)) == []
    assert len(found.to(torch.device("cpu")).train) == 20


TO_TENSOR = transforms.ToTensor()


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (
            {"train": TO_TENSOR},
            "input_transform is 'train': ToTensor; expected a mapping with 'train' and 'eval', each a c",
        ),
        ({}, "input_transform is empty; expected a mapping with 'train' and 'eval'"),
        (TO_TENSOR, "input_transform is ToTensor; expected a mapping"),
        (
            {"train": 3, "eval": TO_TENSOR},
            "'train': int, 'eval': ToTensor; expected a mapping with 'train' and 'eval', "
            "each a callable that takes a PIL image. Give it a torchvision.transforms.Compose for 'train'.",
        ),
        (
            {"train": transforms.PILToTensor(), "eval": TO_TENSOR},
            "input_transform['train'] returned a Tensor of "
            "torch.uint8; expected a Tensor of floats. End it with torchvision.transforms.ToTensor()",
        ),
        (
            {"train": TO_TENSOR, "eval": transforms.Resize(5)},
            "input_transform['eval'] returned a Image; expected a Ten",
        ),
    ],
)
def test_transforms_that_do_not_fit(wrong, message):
    split = Resident(torch.zeros(4, 3, 9, 9, dtype=torch.uint8), torch.arange(4))
    with pytest.raises(TypeError, match=re.escape(message)):
        DataSet(split, split, split, (3, 9, 9), 4).transformed(wrong, augment=True, workers=0)
