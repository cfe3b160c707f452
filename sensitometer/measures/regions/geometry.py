"""The common part of segments of polylines and arcs of ellipses when a model is taken along them."""

from abc import ABC, abstractmethod
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from .graph import Elementwise, Linear, Networks, Pieces
from .maxima import winner_changes
from .rows import Breakpoints, Changes, Rows, activate

Array = Any


class Geometry(ABC):
    """
    Paths of one kind.

    Pre-activations are `z` `[R, W]` at rows. `errors`, by pair, are the sizes of their rounding errors: `z` is put on a boundary
    wherever it is that near.
    """

    step: ClassVar[int]
    """The rows that a piece has beyond its first."""
    lengths: list[int]
    """How many points each path begins with."""

    @abstractmethod
    def vertices(self, paths: slice) -> tuple[Tensor, Rows]:
        """Return the points `[n, ...]` with which some paths begin, float64, and their rows for the first network."""

    @abstractmethod
    def crossings(self, z: Array, rows: Rows, pieces: Elementwise, errors: Array) -> Changes:
        """Return where units cross their boundaries."""

    def changes(self, z: Array, rows: Rows, pieces: Pieces, errors: Array) -> Changes:
        """Return all changes of an operation's pieces."""
        if isinstance(pieces, Elementwise):
            return self.crossings(z, rows, pieces, errors)
        changes: Changes = winner_changes(z, rows, pieces, errors, self.step)
        return changes

    def count(self, z: Array, rows: Rows, pieces: Pieces, errors: Array) -> Array:
        """Return how many changes are on the piece that begins with each row, int64 `[R]`."""
        return np.bincount(self.changes(z, rows, pieces, errors).row, minlength=len(z))

    def activations(self, z: Array, pieces: Elementwise, breakpoints: Breakpoints) -> Array:
        """Return the activations at all rows; a unit is exactly on its boundary wherever it crosses it."""
        h = np.empty((len(breakpoints.old), z.shape[1]))
        activate(np.arange(len(h)), z, breakpoints, pieces, h, self.step)
        return h

    def products(
        self, z: Array, pieces: Elementwise, breakpoints: Breakpoints, linear: Linear, networks: Networks, largest: Array
    ) -> Tensor:
        """
        Return the matrix product of these activations.

        `largest`, by pair, is the largest number that the product gives at the path's vertices.
        """
        return linear.rows(torch.from_numpy(self.activations(z, pieces, breakpoints)), networks)
