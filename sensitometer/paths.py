"""
The paths and slices on which networks are measured (paper, S3, S4.1, A.5.2, A.5.3). They make points and measure nothing.

Every point is a weighted sum of a few `basis` points: the vertices of a polyline, or the centre and the axes of an ellipse or a
slice. Linear functions of points, such as the pre-activations of a first layer, are computed for the basis alone; `combine` adds
them up with the same weights.
"""

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from .errors import InvalidInputError, check_whole_number, described, dimensions

# Where the three points of a fitted ellipse lie, and the directions of a slice's triangle (paper, A.5.2).
ANCHOR_ANGLES = (math.pi / 3, math.pi, 5 * math.pi / 3)
# How far from the centre of a slice its three points lie (paper, A.5.3).
ANCHOR_DISTANCE = 0.8
# Three points are on a line when the area they span is below so much of what their distances would allow.
COLLINEAR = 1e-6
# Or when they are that near to one, in units of the last place of the points' norm.
ROUNDING = 4


@dataclass(frozen=True, eq=False)
class Polyline:
    """
    Straight segments from each vertex to the next, and from the last to the first if it is closed.

    The parameter is the number of the vertex plus the fraction of the segment behind it: 2.25 is a quarter of the way from
    vertex 2 to vertex 3.

    Parameters
    ----------
    vertices
        Floating-point `[M, D]`, or `[M, ...]` for models of points of another shape; M at least 2.
    closed
        Whether a last segment leads back to the first vertex.

    Raises
    ------
    InvalidInputError
        The vertices are not such a tensor, or not finite, or `closed` is not a bool.
    """

    vertices: Tensor
    closed: bool = True

    def __repr__(self) -> str:
        kind = "closed" if self.closed else "open"
        return f"Polyline({len(self.vertices):,} vertices, {kind}, {dimensions(self.vertices.shape[1:])} inputs)"

    def __post_init__(self) -> None:
        vertices: Any = self.vertices
        if not isinstance(vertices, Tensor) or not vertices.is_floating_point() or vertices.ndim < 2 or len(vertices) < 2:
            raise InvalidInputError(f"vertices must be a floating-point tensor [M, D], M at least 2; got {described(vertices)}")
        if not vertices.isfinite().all():
            raise InvalidInputError("vertices must be finite; some are not")
        if not isinstance(self.closed, bool):
            raise InvalidInputError(f"closed must be True or False; got {self.closed!r}")

    @property
    def basis(self) -> Tensor:
        """The vertices."""
        return self.vertices

    @property
    def span(self) -> float:
        """Where the parameter ends, having begun at 0: the number of segments."""
        return float(len(self.vertices) if self.closed else len(self.vertices) - 1)

    def combine(self, values: Tensor, t: Tensor) -> Tensor:
        """Return the linear function with `values` `[M, ...]` at the vertices, at the parameters `t` `[n]`; `[n, ...]`."""
        before = t.floor().clamp(0, self.span - 1).long()
        after = (before + 1) % len(self.vertices)
        share = (t - before).to(values.dtype).view(-1, *[1] * (values.ndim - 1))
        # Written so that it is exact at both ends.
        return values[before] * (1 - share) + values[after] * share

    def points(self, t: Tensor) -> Tensor:
        """Return the points at the parameters `t` `[n]`; `[n, D]`."""
        return self.combine(self.vertices, t)

    def parameters(self, count: int) -> Tensor:
        """Return `count` parameters, evenly spaced from 0; the last is the end of an open line. float64 `[count]`."""
        return torch.linspace(0, self.span, count + self.closed, dtype=torch.float64)[:count]


@dataclass(frozen=True, eq=False)
class Ellipse:
    r"""
    The closed path $z(\theta) = c + u \cos\theta + v \sin\theta$; the parameter is the angle, from 0 to $2\pi$.

    Parameters
    ----------
    centre, u, v
        Floating-point `[D]`, or `[...]` for models of points of another shape; all alike.

    Raises
    ------
    InvalidInputError
        They are not such tensors, or not finite.
    """

    centre: Tensor
    u: Tensor
    v: Tensor
    closed: ClassVar[bool] = True
    span: ClassVar[float] = 2 * math.pi  # the parameter's end

    def __repr__(self) -> str:
        return f"Ellipse({dimensions(self.centre.shape)} inputs)"

    def __post_init__(self) -> None:
        _check_alike({"centre": self.centre, "u": self.u, "v": self.v})

    @property
    def basis(self) -> Tensor:
        """The centre and the two axes, `[3, D]`."""
        return torch.stack([self.centre, self.u, self.v])

    def combine(self, values: Tensor, t: Tensor) -> Tensor:
        r"""Return $y_0 + y_1 \cos t + y_2 \sin t$ at the angles `t` `[n]`, for `values` y `[3, ...]`; `[n, ...]`."""
        return _sums(torch.stack([torch.ones_like(t), t.cos(), t.sin()], 1), values)

    def points(self, t: Tensor) -> Tensor:
        """Return the points at the angles `t` `[n]`; `[n, D]`."""
        return self.combine(self.basis, t)

    def parameters(self, count: int) -> Tensor:
        """Return `count` angles, evenly spaced from 0; float64 `[count]`."""
        return torch.linspace(0, self.span, count + 1, dtype=torch.float64)[:count]


Path = Polyline | Ellipse


def translation(image: Tensor, *, flat: bool = True) -> Polyline:
    """
    Return the closed path through all horizontal one-pixel circular shifts of an image (paper, S3, A.5.2).

    The shifts wrap around, all channels together, so that each vertex has the mean and variance of the image; between
    neighbouring shifts the path is straight. A 28 x 28 image gives 28 vertices.

    Parameters
    ----------
    image
        Floating-point `[channels, height, width]`, at least 2 pixels wide.
    flat
        Whether points are `[D]`, as networks of this package take them, or keep the image's shape.

    Raises
    ------
    InvalidInputError
        The image is not as above.
    """
    pixels = isinstance(image, Tensor) and image.is_floating_point() and image.ndim == 3 and image.numel() > 0
    if not pixels or image.shape[2] < 2:
        expected = "a floating-point tensor [channels, height, width], at least 2 pixels wide"
        raise InvalidInputError(f"image must be {expected}; got {described(image)}")
    shifts = torch.stack([image.roll(shift, dims=2) for shift in range(image.shape[2])])
    return Polyline(shifts.flatten(1) if flat else shifts)


def random_ellipse(d: int, generator: torch.Generator | None = None) -> Ellipse:
    """
    Return an ellipse around 0 with axes drawn from N(0, I) in `d` dimensions, float32 (paper, S4.1, A.5.2).

    Raises
    ------
    InvalidInputError
        `d` is not a whole number of at least 1, or `generator` no generator.
    """
    if not isinstance(generator, torch.Generator | None):
        raise InvalidInputError(f"generator must be a torch.Generator or None; got {type(generator).__name__}")
    d = check_whole_number("d", d)
    u, v = torch.randn(2, d, generator=generator)
    return Ellipse(torch.zeros(d), u, v)


def fitted_ellipse(x1: Tensor, x2: Tensor, x3: Tensor) -> Ellipse:
    r"""
    Return the ellipse through three points, at the angles $\pi/3$, $\pi$ and $5\pi/3$ (paper, S4.1, A.5.2).

    An affine map that sends the vertices of an equilateral triangle to the points sends the circle around it to the ellipse:
    $c = (x_1 + x_2 + x_3)/3$, $u = c - x_2$ and $v = (x_1 - x_3)/\sqrt{3}$.

    Parameters
    ----------
    x1, x2, x3
        Floating-point `[D]`, or `[...]`, all alike.

    Raises
    ------
    InvalidInputError
        Two of the points are equal, all three are on a line, or they are not such tensors.
    """
    return Ellipse(*_plane(x1, x2, x3))


@dataclass(frozen=True, eq=False)
class Slice:
    r"""
    The plane through three points, in coordinates in which they are an equilateral triangle (paper, S4.1, A.5.3).

    The triangle's centre is 0 and its vertices, `anchors`, are at distance 0.8, in the directions $\pi/3$, $\pi$ and $5\pi/3$.
    The slice is the square $[-1, 1]^2$: the point with the coordinates (p, q) is $c + (u p + v q) / 0.8$, with c, u and v as in
    `fitted_ellipse`.

    Parameters
    ----------
    x1, x2, x3
        Floating-point `[D]`, or `[...]`, all alike.

    Raises
    ------
    InvalidInputError
        Two of the points are equal, all three are on a line, or they are not such tensors.
    """

    x1: Tensor
    x2: Tensor
    x3: Tensor

    def __repr__(self) -> str:
        return f"Slice({dimensions(self.x1.shape)} inputs)"

    def __post_init__(self) -> None:
        _plane(self.x1, self.x2, self.x3)

    @property
    def basis(self) -> Tensor:
        """The centre and the two axes, `[3, D]`."""
        c, u, v = _plane(self.x1, self.x2, self.x3)
        return torch.stack([c, u / ANCHOR_DISTANCE, v / ANCHOR_DISTANCE])

    @property
    def anchors(self) -> Tensor:
        """The coordinates of the three points, float64 `[3, 2]`."""
        angles = torch.tensor(ANCHOR_ANGLES, dtype=torch.float64)
        return ANCHOR_DISTANCE * torch.stack([angles.cos(), angles.sin()], 1)

    def combine(self, values: Tensor, coordinates: Tensor) -> Tensor:
        """Return $y_0 + y_1 p + y_2 q$ at the `coordinates` (p, q) `[n, 2]`, for `values` y `[3, ...]`; `[n, ...]`."""
        return _sums(torch.cat([torch.ones_like(coordinates[:, :1]), coordinates], 1), values)

    def points(self, coordinates: Tensor) -> Tensor:
        """Return the points at `coordinates` `[n, 2]`; `[n, D]`."""
        return self.combine(self.basis, coordinates)


def _sums(weights: Tensor, values: Tensor) -> Tensor:
    """Return the sums of `values` `[3, ...]` with `weights` `[n, 3]`; `[n, ...]`."""
    return (weights.to(values.dtype) @ values.flatten(1)).view(-1, *values.shape[1:])


def _plane(x1: Tensor, x2: Tensor, x3: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return c, u, v of `fitted_ellipse`, or raise InvalidInputError."""
    points = {"x1": x1, "x2": x2, "x3": x3}
    _check_alike(points)
    for first, second in itertools.combinations(points, 2):
        if torch.equal(points[first], points[second]):
            raise InvalidInputError(f"x1, x2 and x3 must be different points; {first} and {second} are equal")
    # Over a power of two, which rounds nothing: the squares of large or small points leave the range of float64.
    p = torch.stack([x1, x2, x3]).detach().flatten(1).double()
    p = p / 2.0 ** (math.frexp(float(p.abs().max()))[1] - 1)
    a, b = p[:2] - p[2]
    # The squared area of the parallelogram, against that of a rectangle with these sides; and its height, against rounding.
    allowed = float(a @ a) * float(b @ b)
    area = max(0.0, allowed - float(a @ b) ** 2)
    rounding = ROUNDING * torch.finfo(x1.dtype).eps * float(p.norm(dim=1).max())
    if area <= max(COLLINEAR**2 * allowed, rounding**2 * max(float(a @ a), float(b @ b))):
        raise InvalidInputError("x1, x2 and x3 must not lie on one line; an ellipse or a plane needs three points that do not")
    centre = (x1 + x2 + x3) / 3
    return centre, centre - x2, (x1 - x3) / math.sqrt(3)


def _check_alike(points: dict[str, Tensor]) -> None:
    first = next(iter(points))
    for name, point in points.items():
        proper = isinstance(point, Tensor) and point.is_floating_point() and point.ndim >= 1
        if not proper or (point.shape, point.dtype) != (points[first].shape, points[first].dtype):
            names = f"{', '.join(list(points)[:-1])} and {list(points)[-1]}"
            got = f"{name} is {described(point)}" + (f", {first} {described(points[first])}" if proper else "")
            raise InvalidInputError(f"{names} must be floating-point tensors [D] of one shape and type; {got}")
        if not point.isfinite().all():
            raise InvalidInputError(f"{name} must be finite; it is not")


def reshaped(path: Path, shape: tuple[int, ...]) -> Path:
    """Return a path of points of another shape, with the numbers of each point in their order."""
    if tuple(path.basis.shape[1:]) == shape:
        return path
    basis = path.basis.reshape(-1, *shape)
    return Polyline(basis, path.closed) if isinstance(path, Polyline) else Ellipse(*basis)


def as_paths(path: "Path | Sequence[Path]") -> list[Path]:
    """Return one path, or a sequence of them, as a list; InvalidInputError if it is neither."""
    paths = [path] if isinstance(path, Path) else list(path) if isinstance(path, Sequence) else []
    if not paths or not all(isinstance(path, Path) for path in paths):
        raise InvalidInputError(f"path must be a Polyline, an Ellipse, or a list of them; got {type(path).__name__}")
    return paths
