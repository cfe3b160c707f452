"""Tables of arrays, many convex polygons as such a table, and what is done to each of many runs of an array."""

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from typing import Any, ClassVar, Self

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]


@dataclass(frozen=True)
class Table:
    """Columns with one entry per row. Those in `RUNS` have `lengths` entries per row instead, one run after the other."""

    RUNS: ClassVar[tuple[str, ...]] = ()

    def take(self, rows: Array) -> Self:
        """Return some of the rows, which are given by number or as truth values."""
        columns = {column.name: getattr(self, column.name) for column in fields(self)}
        chosen = dict.fromkeys(columns, rows)
        if self.RUNS:
            lengths = columns["lengths"]
            chosen |= dict.fromkeys(self.RUNS, ranges(starts(lengths)[rows], lengths[rows]))
        return replace(self, **{name: column[chosen[name]] for name, column in columns.items()})

    @classmethod
    def joined(cls, parts: Sequence[Self]) -> Self:
        """Return the rows of all parts."""
        names = [column.name for column in fields(cls)]
        return replace(parts[0], **{name: np.concatenate([getattr(part, name) for part in parts]) for name in names})


@dataclass(frozen=True)
class Polygons(Table):
    """Convex polygons: how many corners each has, `[F]`, and the vertices that are its corners, counter-clockwise, `[I]`."""

    RUNS: ClassVar[tuple[str, ...]] = ("corners",)

    lengths: Array
    corners: Array

    def compact(self) -> tuple[Array, "Polygons"]:
        """Return the vertices that occur, ascending, and the polygons with these numbered from 0."""
        vertices, corners = np.unique(self.corners, return_inverse=True)
        return vertices, Polygons(self.lengths, corners)


def mix(start: Array, end: Array, share: Array) -> Array:
    """Return the values `share` of the way from `start` to `end`; exactly `start` where the two are equal."""
    mixed: Array = start + share * (end - start)
    return mixed


def starts(lengths: Array) -> Array:
    """Return where runs of these lengths begin."""
    first: Array = np.cumsum(lengths) - lengths
    return first


def ranges(first: Array, lengths: Array) -> Array:
    """Return `first`, `first` + 1, ... for each run, one run after the other."""
    return np.repeat(first - starts(lengths), lengths) + np.arange(lengths.sum())


def following(lengths: Array) -> Array:
    """Return the next place for each place in runs of these lengths; for the last of a run, the first."""
    next_ = np.arange(1, lengths.sum() + 1)
    ends = np.cumsum(lengths)
    next_[ends - 1] = ends - lengths
    return next_


def numbered(ascending: Array) -> tuple[Array, Array]:
    """Return the different numbers of an ascending array, and which of them each entry is."""
    first = np.ones(len(ascending), bool)
    np.not_equal(ascending[1:], ascending[:-1], out=first[1:])
    return ascending[first], np.cumsum(first) - 1


def over(ufunc: np.ufunc, values: Array, lengths: Array) -> Array:
    """Reduce each run."""
    reduced: Array = ufunc.reduceat(values, starts(lengths)) if len(lengths) else values[:0]
    return reduced


def two_sided(values: Array, lengths: Array) -> Array:
    """Return which runs of values, around polygons, have one positive and one negative stretch, as those of a line across do."""
    next_ = following(lengths)
    crossed = np.ones(len(lengths), bool)
    for ahead in (values > 0, values < 0):
        crossed &= over(np.add, (ahead & ~ahead[next_]).astype(np.int64), lengths) == 1
    return crossed
