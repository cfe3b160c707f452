"""Turns images into points: the centre crop, the sphere, and the subset that is the same for everybody."""

import hashlib

import numpy as np
import numpy.typing as npt

from .readers import UInt8Array

# Images that are normalised at a time: their float64 copies stay small, and in the processor's cache.
_CHUNK = 64


def centre_crop(images: UInt8Array, crop: int) -> UInt8Array:
    """
    Cut the centre `crop` x `crop` out of each image of `[N, channels, height, width]`.

    When an odd number of rows or columns has to go, one more goes at the bottom or at the right, as TensorFlow's centre
    crop does.
    """
    *_, height, width = images.shape
    top, left = (height - crop) // 2, (width - crop) // 2
    return images[:, :, top : top + crop, left : left + crop]


def to_sphere(images: UInt8Array) -> npt.NDArray[np.float32]:
    r"""
    Normalise each image to zero mean and unit variance over its own pixels, all channels together (paper, A.5).

    $x \mapsto (x - \mu) / \sigma$ with $\mu = \frac{1}{D} \sum_i x_i$ and $\sigma^2 = \frac{1}{D} \sum_i (x_i - \mu)^2$, so that
    $\|x\| = \sqrt{D}$. Computed in float64. An image whose pixels are all equal has no variance and no direction: it
    becomes 0, the centre of the sphere.

    Takes uint8 `[N, channels, height, width]` and returns float32 `[N, D]`, D = channels * height * width in this order.
    """
    flat = images.reshape(len(images), -1)
    points = np.empty(flat.shape, dtype=np.float32)
    for start in range(0, len(flat), _CHUNK):
        block = flat[start : start + _CHUNK].astype(np.float64)
        block -= block.mean(axis=1, keepdims=True)
        deviation = np.sqrt(np.einsum("nd,nd->n", block, block) / block.shape[1])
        # The mean of equal integers is exact, so an image of equal pixels is exactly 0 by now, and 0 / 1 leaves it there.
        deviation[deviation == 0] = 1
        block /= deviation[:, None]
        points[start : start + _CHUNK] = block
    return points


def hash_order(count: int) -> npt.NDArray[np.int64]:
    """
    Return 0 to `count - 1` in a fixed order that looks random: by the SHA-256 of each number's decimal digits.

    Unlike a permutation from a seeded generator, it is the same in every version of every library.
    """
    return np.array(sorted(range(count), key=lambda i: hashlib.sha256(str(i).encode()).digest()), dtype=np.int64)


def balanced_subset(labels: UInt8Array, points: int, classes: int) -> npt.NDArray[np.int64]:
    """
    Choose a fixed subset in which the classes are as equal as they can be.

    The classes take turns, 0 first, each giving its next point in `hash_order`, until there are enough: the counts of two
    classes differ by more than one only where the smaller class has no points left. A smaller subset is part of every larger one.

    Returns the indices of the points, int64 `[points]`, ascending; `labels` are `[N]`, each 0 to `classes - 1`.
    """
    order = hash_order(len(labels))
    turn = np.empty(len(labels), dtype=np.int64)
    for label in range(classes):
        members = order[labels[order] == label]
        turn[members] = np.arange(len(members))
    return np.sort(np.lexsort((labels, turn))[:points])
