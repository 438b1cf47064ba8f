import random

import numpy as np
import pytest
import torch
from PIL import Image

from smoothout.train import data
from smoothout.train.config import Data
from smoothout.train.data import imagefolder, mnist1d
from smoothout.train.data.images import PadCropFlip, image_set, normaliser, resize
from smoothout.train.data.splits import Resident, cut_holdout, in_order


def test_unknown_names_list_the_known():
    known = "cifar10, cifar100, digits, fashion_mnist, imagefolder, imagenet, mnist, mnist1d, stl10"
    with pytest.raises(ValueError, match=f"'cifar'; expected one of {known}, or FILE.py:function, or package.module"):
        data.load(Data("cifar"), 0)


def test_options_that_a_data_set_cannot_follow():
    message = "'digits', which has no place to be fetched from; expected one of cifar10, cifar100, .*Leave --download"
    with pytest.raises(ValueError, match=message):
        data.load(Data("digits", download=True), 0)
    for name in ("mnist1d", "mine.py:load"):
        with pytest.raises(ValueError, match=f"input_size is 16 and the dataset {name!r}, .*Leave --input-size out"):
            data.load(Data(name, input_size=16), 0)


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
    assert normaliser((0.5,), (0.5,), white=240)(images // 2)[0, 1].item() == pytest.approx(127 / 120 - 1)


def test_resizing_keeps_the_central_square():
    ramp = torch.arange(0, 240, 10, dtype=torch.uint8).view(1, 1, 1, 24).expand(2, 3, 12, 24)
    split = Resident(ramp.contiguous(), torch.tensor([0, 1]))
    assert resize(split, None) is split
    assert resize(Resident(ramp[..., :12], split.targets), 12).inputs.shape == (2, 3, 12, 12)
    cropped = resize(split, 12)
    assert torch.equal(cropped.inputs, ramp[..., 6:18])
    assert cropped.targets is split.targets
    smaller = resize(split, 8).inputs
    assert smaller.shape == (2, 3, 8, 8)
    assert smaller.dtype == torch.uint8
    # Of a linear ramp, resizing samples the line: pixel j of 16 lies at 1.5 (j + 1/2) - 1/2 of the 24.
    expected = 10 * (1.5 * (torch.arange(4, 12) + 0.5) - 0.5)
    assert (smaller[0, 0, 0] - expected).abs().max() <= 0.5


def test_padding_grows_with_the_images():
    images = Resident(torch.zeros(10, 1, 28, 28, dtype=torch.uint8), torch.arange(10))
    for side, pad in ((None, 2), (56, 4), (8, 1)):
        settings = Data("mnist", input_size=side)
        found = image_set(settings, 0, images, images, 10, normaliser((0.5,), (0.5,)), PadCropFlip(2, 0))
        assert found.augment == PadCropFlip(pad, 0)
        assert found.input_shape == tuple(found.test.inputs.shape[1:]) == (1, side or 28, side or 28)


def test_the_cut_is_by_seed_and_whole():
    train, held_out = cut_holdout(100, 0.2, seed=3)
    assert len(held_out) == 20
    assert sorted([*train.tolist(), *held_out.tolist()]) == list(range(100))
    assert not torch.equal(held_out, cut_holdout(100, 0.2, seed=4)[1])
    assert torch.equal(held_out, cut_holdout(100, 0.2, seed=3)[1])
    message = (
        "holdout=0.1 of 3 training samples is 0; expected at least one on either side. Give another --holdout, or 0"
    )
    with pytest.raises(ValueError, match=message):
        cut_holdout(3, 0.1, seed=0)


def test_a_share_of_nothing_and_no_share():
    train, held_out = cut_holdout(100, 0.0, seed=3)
    assert train.tolist() == list(range(100))
    assert held_out.tolist() == []
    assert len(cut_holdout(100, None, seed=3)[1]) == 10


def test_in_order_takes_batches_of_a_size():
    split = Resident(torch.arange(10), torch.arange(10))
    assert [len(x) for x, _ in in_order(split, batch_size=4)] == [4, 4, 2]
    assert [len(x) for x, _ in in_order(split)] == [10]
    assert list(in_order(split.take(torch.arange(0)))) == []


# -- mnist1d -------------------------------------------------------------------------------------------------


def test_mnist1d_is_made_once_and_leaves_global_generators_alone(tmp_path, monkeypatch):
    for name, count in (("TRAIN_SAMPLES", 160), ("MADE_SAMPLES", 200), ("TEST_SAMPLES", 100)):
        monkeypatch.setattr(mnist1d, name, count)
    np.random.seed(5)
    random.seed(5)
    states = np.random.get_state()[1].copy(), random.getstate()
    first = data.load(Data(data_dir=tmp_path, holdout=0.25), 0)
    assert (np.random.get_state()[1] == states[0]).all()
    assert random.getstate() == states[1]
    assert (len(first.train), len(first.holdout), len(first.test)) == (160, 40, 100)
    assert first.input_shape == (40,)
    assert (first.train.inputs.dtype, first.train.targets.dtype) == (torch.float32, torch.int64)
    monkeypatch.setattr(mnist1d, "_generate", None)  # a second load reads files
    again = data.load(Data(data_dir=tmp_path, holdout=0.25), 1)
    assert torch.equal(first.train.inputs, again.train.inputs)
    assert not torch.equal(first.holdout.inputs, first.test.inputs[:40])
    assert set(first.test.targets.tolist()) == set(range(10))
    without = data.load(Data(data_dir=tmp_path, holdout=0), 1)
    assert len(without.holdout) == 0
    assert torch.equal(without.train.inputs, first.train.inputs)
    with pytest.raises(ValueError, match="holdout=0.001 of 160 training samples is 0; .*or 0 for none"):
        data.load(Data(data_dir=tmp_path, holdout=0.001), 1)


def test_mnist1d_holds_out_half_as_many_if_nothing_is_said(tmp_path, monkeypatch):
    made = []

    def generate(seed, count):
        made.append(count)
        return np.full((count, 40), seed, dtype=np.float32), np.arange(count) % 10

    monkeypatch.setattr(mnist1d, "_generate", generate)
    monkeypatch.setenv("SMOOTHOUT_DATA", str(tmp_path / "variable"))
    found = data.load(Data(), 0)
    assert (len(found.train), len(found.holdout), len(found.test)) == (4000, 2000, 10_000)
    assert made == [5000, 2000, 10_000]
    assert len(list((tmp_path / "variable" / "mnist1d").iterdir())) == 3


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
    imagefolder.scan.cache_clear()
    return tmp_path


def test_images_of_one_size_stay_in_memory(tree):
    write_images(tree, "train", [(9, 8)] * 10)
    write_images(tree, "test", [(9, 8)] * 3)
    found = data.load(Data("imagefolder", data_dir=tree, holdout=0.2), 0)
    assert (len(found.train), len(found.holdout), len(found.test)) == (16, 4, 6)
    assert found.input_shape == (3, 8, 9)
    assert found.classes == 2
    assert torch.equal(found.test.inputs[:, 0, 0, 0].long(), found.test.targets)
    assert found.augment == PadCropFlip(4, 127)
    assert data.load(Data("imagefolder", data_dir=tree, input_size=16), 0).input_shape == (3, 16, 16)
    held = {bytes(image.flatten().tolist()) for image in found.holdout.inputs}
    assert not held & {bytes(image.flatten().tolist()) for image in found.train.inputs}


def test_where_val_and_test_are_both_there_val_is_the_hold_out(tree):
    for split, count in (("train", 4), ("val", 3), ("test", 2)):
        write_images(tree, split, [(8, 8)] * count)
    found = data.load(Data("imagefolder", data_dir=tree), 0)
    assert (len(found.train), len(found.holdout), len(found.test)) == (8, 6, 4)
    without = data.load(Data("imagefolder", data_dir=tree, holdout=0), 0)
    assert (len(without.train), len(without.holdout), len(without.test)) == (8, 0, 4)


def test_images_of_unequal_size_are_streamed(tree):
    write_images(tree, "train", [(20, 30), (40, 25), (32, 32), (33, 31), (50, 20)])
    write_images(tree, "val", [(20, 30)] * 2)
    found = data.load(Data("imagefolder", data_dir=tree, input_size=16, workers=0, holdout=0.2), 0)
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
    imagefolder.scan.cache_clear()
    write_images(tree, "val", [(8, 8)], classes=("cat", "fish"))
    with pytest.raises(ValueError, match="differ by dog, fish; expected the same sub-folders"):
        data.load(Data("imagefolder", data_dir=tree), 0)


# -- imagenet ------------------------------------------------------------------------------------------------


@pytest.fixture
def imagenet(tree):
    generator = np.random.default_rng(0)
    for split, count in (("train", 6), ("val", 2)):
        for number, name in enumerate(("n01440764", "n01443537", "n01484850")):
            (tree / "imagenet" / split / name).mkdir(parents=True)
            for index in range(count):
                width, height = generator.integers(40, 90, 2)
                image = Image.new(
                    "L" if index == 0 else "RGB", (width, height), (60 * number + index) * (1 if index == 0 else 65793)
                )
                image.save(tree / "imagenet" / split / name / f"{name}_{index}.JPEG", quality=95)
    return tree


@pytest.mark.parametrize("inside", ["", "imagenet"])
def test_imagenet_is_streamed_and_val_is_the_test_split(imagenet, inside):
    found = data.load(Data("imagenet", data_dir=imagenet / inside, holdout=1 / 6, workers=0), 0)
    assert (len(found.train), len(found.holdout), len(found.test)) == (15, 3, 6)
    assert found.input_shape == (3, 224, 224)
    assert found.classes == 3
    x, y = next(in_order(found.test))
    assert x.shape == (6, 3, 224, 224)
    assert y.tolist() == [0, 0, 1, 1, 2, 2]
    assert (x.flatten(1).float().mean(1) - torch.tensor([0.0, 1, 60, 61, 120, 121])).abs().max() < 1.5
    both = torch.cat([found.train.indices, found.holdout.indices])
    assert sorted(both.tolist()) == list(range(18))
    small = data.load(Data("imagenet", data_dir=imagenet / inside, input_size=32, workers=0), 0)
    assert next(small.train.batches([2], torch.tensor([0, 1]), augment=1))[0].shape == (2, 3, 32, 32)
    assert small.normalise(x).dtype == torch.float32


def test_imagenet_evaluates_the_centre_of_the_resized_image(imagenet):
    from torchvision.transforms import v2

    found = data.load(Data("imagenet", data_dir=imagenet, augment=False, holdout=0, workers=0), 0)
    with Image.open(imagenet / "imagenet" / "train" / "n01440764" / "n01440764_0.JPEG") as image:
        pixels = np.asarray(image.convert("RGB")).transpose(2, 0, 1)
    expected = v2.functional.center_crop(v2.functional.resize(torch.tensor(pixels), 256), 224)
    for augment in (None, 5):  # without augmentation, training sees what evaluation sees
        [(x, _)] = found.train.batches([1], torch.tensor([0]), augment=augment)
        assert (x[0].int() - expected.int()).abs().max() <= 1


def test_a_folder_is_listed_once(imagenet, monkeypatch):
    listed = []
    monkeypatch.setattr(
        imagefolder, "ImageFolder", lambda root, make=imagefolder.ImageFolder: listed.append(root) or make(root)
    )
    for seed in range(3):
        data.load(Data("imagenet", data_dir=imagenet), seed)
    assert len(listed) == 2


def test_imagenet_that_is_not_there(imagenet):
    message = "expected the folders train and val, each .*nowhere/imagenet, .*nowhere. Unpack .*by --data-dir"
    with pytest.raises(FileNotFoundError, match=message):
        data.load(Data("imagenet", data_dir=imagenet / "nowhere"), 0)
    (imagenet / "imagenet" / "val" / "n01440764").rename(imagenet / "elsewhere")
    with pytest.raises(
        ValueError, match="imagenet: the classes of .*val and .*train differ by n01440764; expected the"
    ):
        data.load(Data("imagenet", data_dir=imagenet), 0)
