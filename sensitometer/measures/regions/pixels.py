"""Models on the pixels of a slice: how much the codes of neighbours differ, and the logits; one tile of pixels at a time."""

import itertools
import math
from collections.abc import Callable, Iterator
from functools import cached_property

import torch
from torch import Tensor

from ...errors import InvalidInputError
from ...models.adapting import AdaptedModel, as_model_takes
from ...networks import MLP, as_stack
from ...paths import Slice
from ..jacobian.norm import check_outputs
from ..module_codes import ModuleCodes
from ..sampled import layer_codes, preactivations
from .graph import layer_names

Model = MLP | Callable[[Tensor], Tensor]

# Pre-activations at once on a grid, 8 MiB in float32.
BAND = 2**21
# Numbers for each number of a point, in a model that is not of this package: its widest activation is not known.
WIDTH = 64
# How far a plane through 0 may miss it, in units in the last place of the largest of its points.
ROUNDING = 4


def plane_basis(plane: Slice) -> Tensor:
    """
    Return the plane's basis in float64; of a plane that goes through 0 but for the rounding of its points, of one that does.

    In networks without biases boundaries of all layers meet at 0. A plane that misses it by rounding has regions of that size.
    """
    shape = plane.x1.shape
    basis = plane.basis.detach().cpu().double().flatten(1)
    directions = torch.linalg.qr(basis[1:].T).Q
    apart = basis[0] - directions @ (directions.T @ basis[0])
    largest = max(float(point.double().norm()) for point in (plane.x1, plane.x2, plane.x3))
    if float(apart.norm()) <= ROUNDING * torch.finfo(plane.x1.dtype).eps * largest:
        basis = torch.cat([(basis[0] - apart)[None], basis[1:]])
    return basis.view(3, *shape)


def tiles(resolution: int, numbers: int) -> Iterator[tuple[slice, slice, Tensor]]:
    """
    Yield rows and columns of the grid of R x R pixels, and the coordinates of their centres, row after row; float64 `[n, 2]`.

    A tile has about `BAND` numbers, with so many `numbers` per pixel, and shares a row or a column with each neighbour.
    """
    axis = (torch.arange(resolution, dtype=torch.float64) * 2 + 1) / resolution - 1
    side = max(1, math.isqrt(BAND // numbers) - 1)
    parts = [slice(start, min(start + side + 1, resolution)) for start in range(0, resolution, side)]
    for rows, columns in itertools.product(parts, parts):
        yield rows, columns, torch.cartesian_prod(axis[rows], axis[columns]).flip(1)


class NetworkPoints:
    """A network at points of a plane: its first layer is computed for the basis alone."""

    def __init__(self, model: MLP, plane: Slice) -> None:
        self._network = MLP([weight.detach() for weight in model.weights], model.activation)
        self._plane = plane
        first = self._network.weights[0]
        self._first = (plane_basis(plane).to(first.device) @ first.double().T).to(first.dtype)
        self.names = layer_names(as_stack(model))
        self.numbers = self.code_numbers = max(len(weight) for weight in model.weights)

    def codes(self, coordinates: Tensor, layers: tuple[int, ...]) -> Iterator[Tensor]:
        """Yield the codes of these layers, ascending; int8 `[n, W]`."""
        return layer_codes(self._network, self._first_layer(coordinates), layers)

    def logits(self, coordinates: Tensor) -> Tensor:
        """Return the logits, `[n, C]`."""
        *_, logits = preactivations(self._network, self._first_layer(coordinates))
        return logits

    def _first_layer(self, coordinates: Tensor) -> Tensor:
        return self._plane.combine(self._first, coordinates.to(self._first.device))


class ModelPoints:
    """A module or another callable at points of a plane, which it takes in the type of its parameters."""

    def __init__(self, model: Callable[[Tensor], Tensor], plane: Slice) -> None:
        self._model = model
        self._plane = plane
        self._basis = plane_basis(plane)
        self.numbers = WIDTH * plane.x1.numel()
        self._outputs: AdaptedModel | None = None

    @cached_property
    def _codes(self) -> ModuleCodes:
        return ModuleCodes(self._model, self._points(self._plane.anchors))

    @property
    def names(self) -> tuple[str, ...]:
        """The activations, as in `ModuleCodes`."""
        return tuple(self._codes.names)

    @property
    def code_numbers(self) -> int:
        """How many numbers the codes of a point take, at a byte each."""
        units = sum(codes.shape[1] for codes in self._codes(self._points(self._plane.anchors[:1])))
        return max(self._plane.x1.numel(), units // 8)

    def codes(self, coordinates: Tensor, layers: tuple[int, ...]) -> Iterator[Tensor]:
        """Yield the codes of these layers, ascending; int8 `[n, units]`."""
        codes = self._codes(self._points(coordinates))
        return (codes[layer] for layer in layers)

    def logits(self, coordinates: Tensor) -> Tensor:
        """Return the logits, `[n, C]`."""
        points = self._points(coordinates)
        if self._outputs is None:
            self._outputs = AdaptedModel(self._model, points)
            check_outputs("logits", self._outputs.example)
            if self._outputs.example.shape[1] == 1:
                raise InvalidInputError("model must have at least 2 logits, one per class of a map; it has one")
        return self._outputs(points)

    def _points(self, coordinates: Tensor) -> Tensor:
        return as_model_takes(self._model, self._plane.combine(self._basis, coordinates), self._plane.x1)


def points_of(model: Model, plane: Slice) -> NetworkPoints | ModelPoints:
    """Return a model at points of a plane."""
    return NetworkPoints(model, plane) if isinstance(model, MLP) else ModelPoints(model, plane)


def differences(points: NetworkPoints | ModelPoints, layers: tuple[int, ...], resolution: int) -> tuple[Tensor, Tensor]:
    """Return how much the codes of layers differ between neighbours on a grid: `SampledBoundaries.across` and `along`."""
    across = torch.zeros(resolution, resolution - 1, dtype=torch.int32)
    along = torch.zeros(resolution - 1, resolution, dtype=torch.int32)
    for rows, columns, coordinates in tiles(resolution, points.code_numbers):
        tile_across = across[rows, columns.start : columns.stop - 1].zero_()
        tile_along = along[rows.start : rows.stop - 1, columns].zero_()
        for flat in points.codes(coordinates, layers):
            codes = flat.view(rows.stop - rows.start, columns.stop - columns.start, -1)
            tile_across += codes.diff(dim=1).abs_().sum(-1, dtype=torch.int32).cpu()
            tile_along += codes.diff(dim=0).abs_().sum(-1, dtype=torch.int32).cpu()
    return across, along
