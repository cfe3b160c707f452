"""The paths and slices against their definitions."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from sensitometer import paths

ANGLES = torch.tensor([math.pi / 3, math.pi, 5 * math.pi / 3], dtype=torch.float64)


def three_points(seed=0, d=7):
    return torch.randn(3, d, generator=torch.Generator().manual_seed(seed))


# --- polylines


def test_a_polyline_is_straight_between_its_vertices():
    vertices = three_points()
    closed, line = paths.Polyline(vertices), paths.Polyline(vertices, closed=False)
    assert (closed.span, line.span) == (3.0, 2.0)
    t = torch.tensor([0.0, 0.25, 1.0, 1.5, 2.0], dtype=torch.float64)
    expected = torch.stack([vertices[0], 0.75 * vertices[0] + 0.25 * vertices[1], vertices[1], vertices[1:].mean(0), vertices[2]])
    for path in (closed, line):
        torch.testing.assert_close(path.points(t), expected)
    torch.testing.assert_close(
        closed.points(torch.tensor([2.5, 3.0]).double()), torch.stack([vertices[[0, 2]].mean(0), vertices[0]])
    )


def test_parameters_are_even_and_include_the_end_of_an_open_line():
    assert paths.Polyline(three_points()).parameters(6).tolist() == [0.0, 0.5, 1.0, 1.5, 2.0, 2.5]
    assert paths.Polyline(three_points(), closed=False).parameters(5).tolist() == [0.0, 0.5, 1.0, 1.5, 2.0]
    angles = paths.fitted_ellipse(*three_points()).parameters(4)
    assert angles.tolist() == pytest.approx([0.0, math.pi / 2, math.pi, 3 * math.pi / 2])


def test_a_translation_goes_through_all_horizontal_shifts_of_all_channels_together():
    image = torch.arange(24.0).view(2, 3, 4)
    path = paths.translation(image)
    assert path.closed
    assert path.vertices.shape == (4, 24)
    for shift, vertex in enumerate(path.vertices.view(4, 2, 3, 4)):
        for column in range(4):
            assert torch.equal(vertex[:, :, (column + shift) % 4], image[:, :, column])
    assert paths.translation(image, flat=False).vertices.shape == (4, 2, 3, 4)
    torch.testing.assert_close(path.points(torch.tensor([0.5]))[0], (path.vertices[0] + path.vertices[1]) / 2)


def test_shifts_keep_mean_and_variance():
    path = paths.translation(torch.randn(3, 5, 5, generator=torch.Generator().manual_seed(1)))
    assert len(path.vertices) == 5
    torch.testing.assert_close(path.vertices.mean(1), path.vertices[:1].mean(1).expand(5))
    torch.testing.assert_close(path.vertices.var(1), path.vertices[:1].var(1).expand(5))


# --- ellipses


def test_an_ellipse_is_a_sum_of_cosine_and_sine():
    centre, u, v = three_points()
    t = torch.linspace(0, 7, 11, dtype=torch.float64)
    expected = torch.stack([centre + u * math.cos(angle) + v * math.sin(angle) for angle in t.tolist()])
    torch.testing.assert_close(paths.Ellipse(centre, u, v).points(t), expected)


def test_a_random_ellipse_has_normal_axes_and_comes_from_its_generator():
    path = paths.random_ellipse(20_000, torch.Generator().manual_seed(3))
    assert path.centre.abs().max() == 0
    for axis in (path.u, path.v):
        assert (axis.shape, axis.dtype) == ((20_000,), torch.float32)
        assert abs(float(axis.mean())) < 0.03
        assert abs(float(axis.var()) - 1) < 0.05
    assert abs(float(path.u @ path.v)) / 20_000 < 0.03
    assert torch.equal(path.u, paths.random_ellipse(20_000, torch.Generator().manual_seed(3)).u)


@given(st.integers(0, 10**6), st.integers(2, 900), st.floats(0.01, 100))
def test_a_fitted_ellipse_passes_through_its_points(seed, d, scale):
    points = scale * three_points(seed, d)
    found = paths.fitted_ellipse(*points).points(ANGLES)
    assert (found - points).abs().max() <= 1e-5 * points.abs().max()


def test_the_plane_of_a_fitted_ellipse_takes_the_points_to_an_equilateral_triangle():
    """In the coordinates (cos, sin) the three points are on the unit circle, and the ellipse is what the circle becomes."""
    x1, x2, x3 = three_points().double()
    path = paths.fitted_ellipse(x1, x2, x3)
    torch.testing.assert_close(path.centre, (x1 + x2 + x3) / 3)
    coordinates = torch.linalg.lstsq(torch.stack([path.u, path.v], 1), (torch.stack([x1, x2, x3]) - path.centre).T).solution.T
    sides = [float((coordinates[i] - coordinates[j]).norm()) for i, j in ((0, 1), (1, 2), (0, 2))]
    assert sides == pytest.approx([math.sqrt(3)] * 3)


# --- slices


def test_a_slice_has_its_points_at_its_anchors():
    points = three_points()
    plane = paths.Slice(*points)
    torch.testing.assert_close(plane.points(plane.anchors), points)
    assert plane.anchors.norm(dim=1).tolist() == pytest.approx([0.8] * 3)
    torch.testing.assert_close(plane.points(torch.zeros(1, 2))[0], points.mean(0))
    torch.testing.assert_close(plane.anchors / 0.8, torch.stack([ANGLES.cos(), ANGLES.sin()], 1))


def test_a_slice_is_flat():
    plane = paths.Slice(*three_points())
    p, q = torch.tensor([[0.3, -0.9]]), torch.tensor([[-0.5, 0.1]])
    torch.testing.assert_close(plane.points(0.25 * p + 0.75 * q), 0.25 * plane.points(p) + 0.75 * plane.points(q))


# --- what is combined


@pytest.mark.parametrize("path", [paths.Polyline(three_points()), paths.Ellipse(*three_points())], ids=["loop", "ellipse"])
def test_what_is_linear_may_be_computed_on_the_basis(path):
    weight = torch.randn(4, 7, generator=torch.Generator().manual_seed(5))
    t = path.parameters(9)
    torch.testing.assert_close(path.combine(path.basis @ weight.T, t), path.points(t) @ weight.T)


def test_points_may_have_any_shape():
    image = torch.randn(3, 2, 4, 4, generator=torch.Generator().manual_seed(1))
    t = torch.tensor([0.1, 2.2, 2.9]).double()
    for make in (paths.fitted_ellipse, paths.Slice, lambda *points: paths.Polyline(torch.stack(points))):
        shaped, flat = make(*image), make(*image.flatten(1))
        where = torch.stack([t, t], 1) if isinstance(shaped, paths.Slice) else t
        assert shaped.points(where).shape == (3, 2, 4, 4)
        torch.testing.assert_close(shaped.points(where).flatten(1), flat.points(where))


@pytest.mark.parametrize("scale", [1e-310, 1e-200, 1e200, 1e300])
def test_points_may_be_as_large_or_small_as_float64_holds(refused, scale):
    points = scale * three_points().double()
    plane = paths.Slice(*points)
    for found in (paths.fitted_ellipse(*points).points(ANGLES), plane.points(plane.anchors)):
        torch.testing.assert_close(found, points, rtol=1e-9, atol=0)
    with refused("must not lie on one line"):
        paths.Slice(points[0], points[1], (points[0] + points[1]) / 2)


def test_points_that_require_gradients_are_taken_without_a_warning():
    points = three_points().requires_grad_()
    # Otherwise torch warns once in a process, which may have been before.
    torch.set_warn_always(True)
    try:
        ellipse, plane = paths.fitted_ellipse(*points), paths.Slice(*points)
    finally:
        torch.set_warn_always(False)
    assert ellipse.points(ANGLES).requires_grad
    assert plane.points(plane.anchors).requires_grad


# --- what is refused


def test_points_that_span_no_plane_are_refused(refused):
    x1, x2, x3 = three_points()
    for make in (paths.fitted_ellipse, paths.Slice):
        for points, expected in (
            ((x1, x1, x3), "different points; x1 and x2 are equal"),
            ((x1, x3, x3), "different points; x2 and x3 are equal"),
            ((x1, x2, x1), "different points; x1 and x3 are equal"),
            ((x1, x1 + x2, x1 + 3 * x2), "must not lie on one line"),
            ((x1, x2[:3], x3), r"x1, x2 and x3 must be .* of one shape and type; x2 is torch.float32 \[3\]"),
            ((x1, x2.double(), x3), "of one shape and type"),
            ((x1, x2, x3 * math.nan), "x3 must be finite"),
            (([1], x2, x3), r"must be floating-point tensors \[D\] of one shape and type; x1 is list$"),
            ((x1.long(), x2.long(), x3.long()), r"must be floating-point tensors .*; x1 is torch.int64 \[7\]$"),
            ((x1, x2[:3], x3), r"x2 is torch.float32 \[3\], x1 torch.float32 \[7\]$"),
        ):
            with refused(expected):
                make(*points)


@pytest.mark.parametrize("offset", [0.0, 10.0, 100.0, 255.0])
def test_points_on_one_line_are_refused_wherever_it_is(refused, offset):
    a, b, other = torch.randn(3, 784, generator=torch.Generator().manual_seed(3)) + offset
    for make in (paths.fitted_ellipse, paths.Slice):
        with refused("must not lie on one line"):
            make(a, b, a + 0.3 * (b - a))
        make(a, b, other)


def test_bad_arguments_are_refused(refused):
    for expected, call in (
        (
            r"vertices must be a floating-point tensor \[M, D\], M at least 2; got torch.float32 \[1, 3\]",
            lambda: paths.Polyline(torch.ones(1, 3)),
        ),
        ("vertices must be .* got list", lambda: paths.Polyline([[1.0], [2.0]])),
        ("vertices must be finite", lambda: paths.Polyline(torch.tensor([[math.inf], [1.0]]))),
        ("closed must be True or False; got 'no'", lambda: paths.Polyline(torch.ones(2, 3), "no")),
        (r"image must be .*; got torch.float32 \[0, 3, 3\]", lambda: paths.translation(torch.zeros(0, 3, 3))),
        ("generator must be a torch.Generator or None; got int", lambda: paths.random_ellipse(5, 3)),
        (r"image must be .* got torch.float32 \[3, 3\]", lambda: paths.translation(torch.ones(3, 3))),
        ("image must be", lambda: paths.translation(torch.ones(1, 3, 1))),
        ("d must be a whole number of at least 1; got 0", lambda: paths.random_ellipse(0)),
        ("d must be", lambda: paths.random_ellipse(True)),
        ("centre, u and v must be", lambda: paths.Ellipse(torch.ones(2), torch.ones(3), torch.ones(2))),
    ):
        with refused(expected):
            call()
