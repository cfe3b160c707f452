"""Loads a known data set: images read and checked, cropped, normalised, handed over as tensors."""

import os
from pathlib import Path

import numpy as np

from ..errors import check_whole_number
from .arrays import Arrays, Part
from .datasets import Dataset, make_dataset
from .locations import data_root
from .readers import UInt8Array, read_digits, read_split
from .sources import SOURCES, Source, find_source
from .transforms import Normalisation, Raw, balanced_subset, centre_crop, hash_order

# The largest pixel of `digits`; of the others it is 255.
_DIGITS_WHITE = 16
# Means and deviations of the pixels in [0, 1] of the whole training sets as shipped, as they are usually given. Those of digits
# were printed by: python -c "from sensitometer import load_dataset as l; x = l('digits', normalise='none').train.x;
# print(x.mean(), x.std())"
_USUAL = {
    "digits": "0.3054/0.3758",
    "mnist": "0.1307/0.3081",
    "fashion-mnist": "0.2860/0.3530",
    "cifar10": "0.4914,0.4822,0.4465/0.2470,0.2435,0.2616",
    "cifar100": "0.5071,0.4865,0.4409/0.2673,0.2564,0.2762",
}
# ImageNet's, with which many networks for other colour images are trained, too.
_IMAGENET = "0.485,0.456,0.406/0.229,0.224,0.225"


def load_dataset(
    name: str,
    *,
    root: str | os.PathLike[str] | None = None,
    crop: int | None = None,
    train_points: int | None = None,
    normalise: str = "sphere",
) -> Dataset:
    r"""
    Load a data set from the files on this machine.

    | name | training points | test points | classes | image | source |
    |---|---|---|---|---|---|
    | `digits` | 1,297 | 500 | 10 | 1 x 8 x 8 | part of scikit-learn |
    | `mnist` | 50,000 | 10,000 | 10 | 1 x 28 x 28 | LeCun, Cortes, Burges |
    | `fashion-mnist` | 50,000 | 10,000 | 10 | 1 x 28 x 28 | Xiao, Rasul, Vollgraf, arXiv:1708.07747 |
    | `cifar10` | 50,000 | 10,000 | 10 | 3 x 32 x 32 | Krizhevsky 2009 |
    | `cifar100` | 50,000 | 10,000 | 100 | 3 x 32 x 32 | Krizhevsky 2009; the 100 fine labels |

    MNIST and Fashion-MNIST ship 60,000 training points where the paper used 50,000 without saying which: the first
    50,000 are taken, which is an interpretation. `digits` ships undivided: its points are put in the order of the SHA-256
    of their index, and the first 1,297 of that order are the training set.

    Parameters
    ----------
    name
        One of the names above.
    root
        The folder that holds the data sets' folders; by default `$SENSITOMETER_DATA`, else the user's cache folder. The files
        may also lie where torchvision puts them, in `root` or in the data set's folder, or as Kaggle has them, in the data set's
        folder. `digits` needs none.
    crop
        Keep the centre `crop` x `crop` of each image; the paper uses 24 on CIFAR. When an odd number of rows or columns
        has to go, one more goes at the bottom or at the right.
    train_points
        Train on a fixed subset of N points, the same for everybody. The classes take turns, so that their numbers of points are
        as equal as they can be. A smaller subset is part of a larger one. The points stay in the order of the whole training set,
        and the test set stays whole.
    normalise
        `sphere`: each image, after the crop, is brought to zero mean and unit variance over its own pixels, so that
        $\|x\| = \sqrt{D}$ (paper, A.5); an image whose pixels are all equal becomes 0. `none`: pixels in [0, 1]. `MEAN/STD`:
        these pixels minus the mean, divided by the deviation; see `Dataset.renormalised`.

    Raises
    ------
    InvalidInputError
        The name is unknown, `crop` is not from 1 to the image's side, `train_points` is not from the number of classes
        to that of the training points, or `normalise` is none.
    DataError
        A file is missing, damaged, or another file than its name says; of `digits`, that of scikit-learn.
    """
    source = find_source(name)
    channels, height, width = source.image_shape
    if crop is not None:
        crop = check_whole_number(f"crop for {name}", crop, most=min(height, width))
    if train_points is not None:
        train_points = check_whole_number(
            f"train_points for {name}", train_points, least=source.classes, most=source.train.points
        )
    Normalisation.parse(normalise)
    (train_images, train_labels), (test_images, test_labels) = (
        _read_files(source, data_root(root) / name) if source.downloads else _read_digits(source)
    )
    if train_points is not None:
        chosen = balanced_subset(train_labels, train_points, source.classes)
        train_images, train_labels = train_images[chosen], train_labels[chosen]
    train, test = _part(name, train_images, train_labels, crop), _part(name, test_images, test_labels, crop)
    shape = source.image_shape if crop is None else (channels, crop, crop)
    return make_dataset(Arrays(name, train, test, source.classes, shape, source.class_names), normalise)


def usual_normalisations(dataset: Dataset) -> list[str]:
    """
    Return the normalisations that networks for a known data set are usually trained with; none for any other data.

    These are the sphere, pixels in [0, 1], the mean and the deviation of its training set, and, of colour images, those of
    ImageNet.

    Examples
    --------
    >>> from sensitometer import load_dataset
    >>> usual_normalisations(load_dataset("digits"))
    ['sphere', 'none', '0.3054/0.3758']
    """
    if dataset.name not in SOURCES:
        return []
    colour = [_IMAGENET] if dataset.shape[0] == 3 else []
    return ["sphere", "none", _USUAL[dataset.name], *colour]


def _read_files(source: Source, folder: Path) -> list[tuple[UInt8Array, UInt8Array]]:
    return [read_split(source, split, folder) for split in (source.train, source.test)]


def _read_digits(source: Source) -> list[tuple[UInt8Array, UInt8Array]]:
    images, labels = read_digits(source.train.points + source.test.points, source.image_shape)
    return [(images[chosen], labels[chosen]) for chosen in np.split(hash_order(len(labels)), [source.train.points])]


def _part(name: str, images: UInt8Array, labels: UInt8Array, crop: int | None) -> Part:
    images = images if crop is None else centre_crop(images, crop)
    # A power of two: no bit of a point on the sphere depends on the division.
    x: Raw = np.divide(images, _DIGITS_WHITE, dtype=np.float32) if name == "digits" else images
    return Part(x, labels.astype(np.int64))
