"""ImageNet (Russakovsky et al. 2015) as a tree ``train/CLASS/*``, ``val/CLASS/*``; ``val`` is the test split.

Always read from files: random resized crops and flips in training, resize and centre crop in evaluation, as the
original program has them.
"""

from smoothout.train.config import Data
from smoothout.train.data.imagefolder import STREAMED_SIDE, same_classes, scan, stream
from smoothout.train.data.images import IMAGENET_MEAN, IMAGENET_STD, normaliser
from smoothout.train.data.splits import DataSet, cut_holdout


def load(settings: Data, seed: int) -> DataSet:
    """Find the tree and cut the hold-out from its training images."""
    folder = settings.folder.resolve()
    places = [folder / "imagenet", folder]
    root = next((place for place in places if (place / "train").is_dir() and (place / "val").is_dir()), None)
    if root is None:
        raise FileNotFoundError(
            f"imagenet: expected the folders train and val, each with a sub-folder for every class, in one of "
            f"{', '.join(map(str, places))}. Unpack the images there, or name their folder by --data-dir."
        )
    folders = {name: scan(root / name) for name in ("train", "val")}
    same_classes("imagenet", folders)
    train, test = (stream(settings, folder) for folder in folders.values())
    kept, held_out = cut_holdout(len(train), settings.holdout, seed)
    side = settings.input_size or STREAMED_SIDE
    return DataSet(
        train=train.take(kept),
        holdout=train.take(held_out),
        test=test,
        input_shape=(3, side, side),
        classes=len(folders["train"].classes),
        normalise=normaliser(IMAGENET_MEAN, IMAGENET_STD),
    )
