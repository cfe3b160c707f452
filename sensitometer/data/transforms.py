"""Turns images into points: the centre crop, the normalisation, and the subset that is the same for everybody."""

import hashlib
import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from ..errors import InvalidInputError, dimensions
from .readers import UInt8Array

# Numbers of points before the normalisation.
Raw = UInt8Array | npt.NDArray[np.float32]
# Means and deviations that are taken; float32 has no room for much more.
_LARGEST, _SMALLEST = 1e30, 1e-30

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


def to_sphere(images: Raw) -> npt.NDArray[np.float32]:
    r"""
    Normalise each point to zero mean and unit variance over its own numbers, of an image all channels together (paper, A.5).

    $x \mapsto (x - \mu) / \sigma$ with $\mu = \frac{1}{D} \sum_i x_i$ and $\sigma^2 = \frac{1}{D} \sum_i (x_i - \mu)^2$, so that
    $\|x\| = \sqrt{D}$. Computed in float64. A point whose numbers are all equal has no variance and no direction: it
    becomes 0, the centre of the sphere.

    Takes uint8 or float32 `[N, ...]` and returns float32 `[N, D]`; D of an image is channels * height * width in this order.
    """
    flat = images.reshape(len(images), math.prod(images.shape[1:]))
    points = np.empty(flat.shape, dtype=np.float32)
    for start in range(0, len(flat), _CHUNK):
        block = flat[start : start + _CHUNK].astype(np.float64)
        block -= block.mean(axis=1, keepdims=True)
        deviation = np.sqrt(np.einsum("nd,nd->n", block, block) / block.shape[1])
        # Rounding may have left a little in place of 0.
        equal = (flat[start : start + _CHUNK] == flat[start : start + _CHUNK, :1]).all(axis=1)
        block[equal], deviation[equal] = 0, 1
        block /= deviation[:, None]
        points[start : start + _CHUNK] = block
    return points


@dataclass(frozen=True, slots=True)
class Normalisation:
    r"""
    The change of a point before it is handed to a network.

    Parameters
    ----------
    text
        `sphere`, `none` or MEAN/STD, as it was chosen.
    mean, deviation
        Numbers of MEAN/STD: one for all inputs, or one per channel, or, of flat points, per input.
    """

    text: str
    mean: tuple[float, ...] = ()
    deviation: tuple[float, ...] = ()

    @classmethod
    def parse(cls, text: str) -> "Normalisation":
        """Return the normalisation that `text` names; InvalidInputError if it names none."""
        if text in ("sphere", "none"):
            return cls(text)
        expected = "normalise must be sphere, none or MEAN/STD, such as 0.5/0.25 or 0.49,0.48,0.45/0.25,0.24,0.26"
        if not isinstance(text, str):
            raise InvalidInputError(f"{expected}; got {text!r}")
        try:
            mean, deviation = (tuple(float(number) for number in part.split(",")) for part in text.split("/"))
        except ValueError:
            raise InvalidInputError(f"{expected}; got {text!r}") from None
        numbers = [*mean, *deviation]
        if not all(math.isfinite(number) and abs(number) <= _LARGEST for number in numbers):
            raise InvalidInputError(f"{expected}, of finite numbers; got {text!r}")
        if min(deviation) < _SMALLEST:
            raise InvalidInputError(f"{expected}, with deviations above 0; got {text!r}")
        if len(mean) != len(deviation):
            raise InvalidInputError(
                f"{expected}, with as many means as deviations; got {len(mean)} and {len(deviation)} in {text!r}"
            )
        return cls("".join(text.split()), mean, deviation)

    def apply(self, raw: Raw, shape: tuple[int, ...]) -> npt.NDArray[np.float32]:
        r"""
        Normalise points of this `shape`.

        `sphere` is `to_sphere`. Otherwise bytes are first divided by 255, so that they are in [0, 1]; `none` is no more than
        that, and MEAN/STD is $x \mapsto (x - \mu) / \sigma$ by channel, in float32, as torchvision's `ToTensor` and `Normalize`
        have it.

        Takes uint8 or float32 `[N, ...]` and returns float32 `[N, D]`.
        """
        if self.text == "sphere":
            return to_sphere(raw)
        inputs, channels = math.prod(shape), len(self.mean)
        flat = raw.reshape(len(raw), inputs)
        x: npt.NDArray[np.float32] = (
            np.divide(flat, 255, dtype=np.float32) if flat.dtype == np.uint8 else flat.astype(np.float32, copy=False)
        )
        if self.text == "none":
            return x
        self.check(shape)
        mean, deviation = (np.array(numbers, np.float32)[:, None] for numbers in (self.mean, self.deviation))
        with np.errstate(over="ignore"):  # the caller looks whether all are finite
            x = x.reshape(len(raw), channels, inputs // channels) - mean
            x /= deviation
        return x.reshape(len(raw), inputs)

    def check(self, shape: tuple[int, ...]) -> None:
        """Raise InvalidInputError if it is not for points of this shape."""
        if len(self.mean) < 2:
            return
        if len(shape) == 2:
            raise InvalidInputError(
                f"normalise must be sphere, none or one MEAN/STD for points of {dimensions(shape)}; "
                f"got {len(self.mean)} means, which belong to the channels of images or to flat points"
            )
        if len(self.mean) != shape[0]:
            kind = "channel" if len(shape) > 1 else "input"
            raise InvalidInputError(
                f"normalise must have one mean and deviation, or one per {kind}, {shape[0]} for points of {dimensions(shape)}; "
                f"got {len(self.mean)}"
            )


def hash_order(count: int) -> npt.NDArray[np.int64]:
    """
    Return 0 to `count - 1` in a fixed order that looks random: by the SHA-256 of each number's decimal digits.

    Unlike a permutation from a seeded generator, it is the same in every version of every library.
    """
    return np.array(sorted(range(count), key=lambda i: hashlib.sha256(str(i).encode()).digest()), dtype=np.int64)


def balanced_subset(labels: npt.NDArray[np.integer[Any]], points: int, classes: int) -> npt.NDArray[np.int64]:
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
