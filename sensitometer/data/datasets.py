"""Loads a data set: images read and checked, cropped, put on the sphere, handed over as tensors."""

import os
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from ..errors import check_whole_number, counted, dimensions
from .locations import data_root
from .readers import UInt8Array, read_digits, read_split
from .sources import Source, find_source
from .transforms import balanced_subset, centre_crop, hash_order, to_sphere

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True, slots=True, eq=False)
class Points:
    r"""
    The points of a training or of a test set.

    Parameters
    ----------
    x
        float32 `[N, D]`, each on the sphere of radius $\sqrt{D}$; D runs over channel, row, column.
    y
        int64 `[N]`, the classes, from 0.
    """

    x: "torch.Tensor"
    y: "torch.Tensor"

    def __repr__(self) -> str:
        return f"Points({counted(len(self.y), 'point')} of {counted(self.x[0].numel(), 'input')})"


@dataclass(frozen=True, slots=True, eq=False)
class Dataset:
    """
    A data set, ready to train on.

    Parameters
    ----------
    name
        As in `load_dataset`.
    train, test
        The two sets of points.
    classes
        Number of classes, C.
    image_shape
        (channels, height, width) of a point as an image, after the crop.
    """

    name: str
    train: Points
    test: Points
    classes: int
    image_shape: tuple[int, int, int]

    def __repr__(self) -> str:
        points = f"{len(self.train.y):,} train and {len(self.test.y):,} test points"
        return f"Dataset({self.name}, {points}, {dimensions(self.image_shape)}, {self.classes} classes)"


def load_dataset(
    name: str, *, root: str | os.PathLike[str] | None = None, crop: int | None = None, train_points: int | None = None
) -> Dataset:
    r"""
    Load a data set from the files on this machine.

    Each image, after the crop, is normalised to zero mean and unit variance over its own pixels, so that
    $\|x\| = \sqrt{D}$ (paper, A.5); an image whose pixels are all equal becomes 0.

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
        The folder that holds the data sets' folders; by default `$SENSITOMETER_DATA`, else the user's cache folder.
        `digits` needs none.
    crop
        Keep the centre `crop` x `crop` of each image; the paper uses 24 on CIFAR. When an odd number of rows or columns
        has to go, one more goes at the bottom or at the right.
    train_points
        Train on a fixed subset of N points, the same for everybody. The classes take turns, so that their numbers of points are
        as equal as they can be. A smaller subset is part of a larger one. The points stay in the order of the whole training set,
        and the test set stays whole.

    Raises
    ------
    InvalidInputError
        The name is unknown, `crop` is not from 1 to the image's side, or `train_points` is not from the number of classes
        to that of the training points.
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
    folder = data_root(root) / name
    (train_images, train_labels), (test_images, test_labels) = (
        _read_digits(source) if name == "digits" else [read_split(source, split, folder) for split in (source.train, source.test)]
    )
    if train_points is not None:
        chosen = balanced_subset(train_labels, train_points, source.classes)
        train_images, train_labels = train_images[chosen], train_labels[chosen]
    return Dataset(
        name=name,
        train=_points(train_images, train_labels, crop),
        test=_points(test_images, test_labels, crop),
        classes=source.classes,
        image_shape=source.image_shape if crop is None else (channels, crop, crop),
    )


def _read_digits(source: Source) -> list[tuple[UInt8Array, UInt8Array]]:
    images, labels = read_digits(source.train.points + source.test.points, source.image_shape)
    return [(images[chosen], labels[chosen]) for chosen in np.split(hash_order(len(labels)), [source.train.points])]


def _points(images: UInt8Array, labels: UInt8Array, crop: int | None) -> Points:
    # Listing and fetching data sets import this module too, and need no torch.
    import torch

    x = to_sphere(images if crop is None else centre_crop(images, crop))
    return Points(torch.from_numpy(x), torch.from_numpy(labels.astype(np.int64)))
