"""Many convex polygons at once, one after the other in flat arrays, and what is done to each of many runs of an array."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]


@dataclass(frozen=True)
class Polygons:
    """Convex polygons: how many corners each has, `[F]`, and the vertices that they are, one polygon after the other, `[I]`."""

    lengths: Array
    corners: Array

    def take(self, which: Array) -> "Polygons":
        """Return some of them: `which` are their numbers."""
        return Polygons(self.lengths[which], self.corners[ranges(starts(self.lengths)[which], self.lengths[which])])

    def compact(self) -> tuple[Array, "Polygons"]:
        """Return the vertices that occur, ascending, and the polygons with these numbered from 0."""
        vertices, corners = np.unique(self.corners, return_inverse=True)
        return vertices, Polygons(self.lengths, corners.reshape(-1))


def mix(start: Array, end: Array, share: Array) -> Array:
    """Return what is `share` of the way from `start` to `end`; exactly `start` where the two are equal."""
    mixed: Array = start + share * (end - start)
    return mixed


def starts(lengths: Array) -> Array:
    """Return where runs of these lengths begin."""
    first: Array = np.cumsum(lengths) - lengths
    return first


def ranges(first: Array, lengths: Array) -> Array:
    """Return `first`, `first` + 1, ... for each run, one after the other."""
    return np.repeat(first - starts(lengths), lengths) + np.arange(lengths.sum())


def following(lengths: Array) -> Array:
    """Return for each place in runs of these lengths the next one, for the last of a run its first."""
    next_ = np.arange(1, lengths.sum() + 1)
    ends = np.cumsum(lengths)
    next_[ends - 1] = ends - lengths
    return next_


def numbered(ascending: Array) -> tuple[Array, Array]:
    """Return the different numbers of an ascending array, and which of them each is."""
    first = np.ones(len(ascending), bool)
    np.not_equal(ascending[1:], ascending[:-1], out=first[1:])
    return ascending[first], np.cumsum(first) - 1


def over(ufunc: np.ufunc, values: Array, lengths: Array) -> Array:
    """Reduce each run."""
    reduced: Array = ufunc.reduceat(values, starts(lengths)) if len(lengths) else values[:0]
    return reduced


def two_sided(values: Array, lengths: Array) -> Array:
    """Return which runs of values, around polygons, are once positive and once negative, as those of a line across are."""
    next_ = following(lengths)
    once = np.ones(len(lengths), bool)
    for ahead in (values > 0, values < 0):
        once &= over(np.add, (ahead & ~ahead[next_]).astype(np.int64), lengths) == 1
    return once
