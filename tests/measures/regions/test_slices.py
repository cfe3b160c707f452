"""The boundaries on a slice against a slow twin, against the codes on a grid, and where networks are degenerate."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from reference import ACTIVATIONS, BOUNDARIES, activate, forward
from slow_slices import SHORT, slow_arrangement

from sensitometer.errors import InvalidInputError, TooManyRegionsError
from sensitometer.measures.regions import pixels
from sensitometer.measures.regions import slices as module
from sensitometer.measures.regions.faces import arrangement
from sensitometer.measures.regions.slices import ExactBoundaries, boundaries, class_map
from sensitometer.networks import MLP, MLPStack, initial_weights, layer_shapes
from sensitometer.paths import ANCHOR_ANGLES, ANCHOR_DISTANCE, Slice

PIECEWISE = [name for name in ACTIVATIONS if name != "tanh"]
# Faces of less area than this, and their codes, are at the mercy of rounding; the slow twin leaves some out.
TINY = 1e-12
# inputs, width, depth, classes
SHAPES = {
    "one hidden layer": (6, 9, 2, 3),
    "width 1": (6, 1, 4, 3),
    "width 2": (5, 2, 6, 3),
    "wide": (6, 20, 3, 2),
    "deep": (7, 8, 7, 3),
    "more than 64 units": (5, 66, 2, 2),
}


def make_network(shape, activation, *, scale=1.0, seed=1):
    weights = initial_weights(layer_shapes(*shape), activation, scale, seed)
    return MLP([weight.double() for weight in weights], activation)


def make_slice(inputs, *, scale=3.0, seed=5):
    return Slice(*scale * torch.randn(3, inputs, generator=torch.Generator().manual_seed(seed), dtype=torch.float64))


def flat_slice():
    """The plane whose point with the coordinates (p, q) is (p, q, 1): the third weight of a unit is its bias."""
    angles = torch.tensor(ANCHOR_ANGLES, dtype=torch.float64)
    corners = ANCHOR_DISTANCE * torch.stack([angles.cos(), angles.sin()], 1)
    return Slice(*torch.cat([corners, torch.ones(3, 1)], 1))


def on_flat_slice(rows, activation="relu", *more):
    """Units a p + b q + c of the plane's coordinates, given as rows (a, b, c)."""
    return MLP([torch.tensor(weight, dtype=torch.float64) for weight in (rows, *more)], activation)


def codes(network, plane, coordinates, layers):
    """The codes of these layers' units at `coordinates` `[n, 2]`; `[n, units]`."""
    found, h = [], plane.points(coordinates)
    for layer, weight in enumerate(network.weights[:-1]):
        z = h @ weight.T
        if layer in layers:
            found.append(sum((z > level).long() for level in BOUNDARIES[network.activation]))
        h = activate(network.activation, z)
    return torch.cat(found, 1)


def nudged_codes(network, plane, coordinates):
    """The codes of all hidden units, where what is within 1e-11 above a boundary is at it."""
    found, h = [], plane.points(coordinates)
    for weight in network.weights[:-1]:
        z = h @ weight.T
        found.append(sum((z > level + 1e-11).long() for level in BOUNDARIES[network.activation]))
        h = activate(network.activation, z)
    return torch.cat(found, 1)


def assert_tiles(found, network, plane):
    """The faces tile the square, each with codes of its own that hold near all its corners."""
    assert float(found.areas.sum()) == pytest.approx(4.0, abs=1e-12)
    assert (found.areas > 0).all()
    upto = range(found.layers[-1] + 1)
    own = codes(network, plane, found.centroids, upto)
    # A region of one code is convex, so two faces of one code would be neighbours with no boundary between.
    large = own[found.areas > TINY]
    assert len(large.unique(dim=0)) == len(large) > 0.99 * found.faces
    lengths = found.offsets.diff()
    face = torch.arange(found.faces).repeat_interleave(lengths)
    near = 0.99 * found.corners + 0.01 * found.centroids[face]
    same = (codes(network, plane, near, upto) == own[face]).all(1)
    assert same[found.areas[face] > TINY].all()


def sorted_segments(found):
    ends = found.segments.tolist()
    whose = zip(found.layer.tolist(), found.unit.tolist(), found.boundary.tolist(), strict=True)
    return sorted((*who, sorted(map(tuple, pair))) for who, pair in zip(whose, ends, strict=True))


def middles(segments):
    """The owner of each segment and its middle, sorted so that rounding, and two middles above one another, change no order."""
    rows = [(*who, *(sum(c) / 2 for c in zip(*ends, strict=True))) for *who, ends in segments]
    return torch.tensor(sorted(rows, key=lambda row: (*row[:3], row[3] + row[4] / math.pi)), dtype=torch.float64)


def assert_like_twin(network, plane, layer):
    found = boundaries(network, plane, layer=layer)
    faces, segments = slow_arrangement(network, plane, found.layers[-1])
    own = codes(network, plane, found.centroids, range(found.layers[-1] + 1)).tolist()
    areas = {tuple(code): area for code, area in zip(own, found.areas.tolist(), strict=True) if area > TINY}
    twins = {code: sum(parts) for code, parts in faces.items() if sum(parts) > TINY}
    assert max(map(len, faces.values())) == 1
    assert areas == {code: pytest.approx(area, abs=1e-10) for code, area in twins.items()}
    here, there = (
        [segment for segment in some if segment[0] in found.layers and math.dist(*segment[3]) > SHORT]
        for some in (sorted_segments(found), segments)
    )
    assert [segment[:3] for segment in here] == sorted(segment[:3] for segment in there)
    torch.testing.assert_close(middles(here), middles(there), rtol=0, atol=1e-9)
    return found


# --- exact


@pytest.mark.parametrize("activation", PIECEWISE)
@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
def test_faces_and_segments_are_the_twins(shape, activation):
    network, plane = make_network(shape, activation), make_slice(shape[0], scale=0.7 if shape[1] > 9 else 3.0)
    assert_tiles(assert_like_twin(network, plane, "all"), network, plane)


@pytest.mark.parametrize("activation", ["relu", "hardtanh"])
@pytest.mark.parametrize("layer", [0, 1, 3, -1, -5])
def test_one_layer_is_the_twins(activation, layer):
    found = assert_like_twin(make_network((7, 8, 6, 3), activation), make_slice(7), layer)
    assert found.layers == (layer % 5,)
    assert set(found.layer.tolist()) == {layer % 5}


@given(
    activation=st.sampled_from(PIECEWISE),
    shape=st.tuples(st.integers(3, 6), st.integers(1, 9), st.integers(2, 5), st.integers(1, 3)),
    scale=st.sampled_from([0.5, 1.0, 4.0]),
    seed=st.integers(0, 10**6),
    layer=st.sampled_from(["all", 0, -1]),
)
def test_any_network_is_the_twins(activation, shape, scale, seed, layer):
    network, plane = make_network(shape, activation, scale=scale, seed=seed), make_slice(shape[0], seed=seed)
    assert_like_twin(network, plane, layer)


@pytest.mark.parametrize("activation", PIECEWISE)
def test_patches_do_not_show(activation, monkeypatch):
    network, plane = make_network((7, 10, 5, 3), activation), make_slice(7)
    whole = boundaries(network, plane, layer="all")
    for size in (1, 200):
        monkeypatch.setattr(arrangement, "PATCH", size)
        found = boundaries(network, plane, layer="all")
        assert (found.faces, len(found.segments)) == (whole.faces, len(whole.segments))
        torch.testing.assert_close(found.areas.sort().values, whole.areas.sort().values, rtol=0, atol=1e-13)
        one, other = (torch.tensor([segment[:3] for segment in sorted_segments(bounds)]) for bounds in (found, whole))
        assert torch.equal(one, other)
        torch.testing.assert_close(found.segments.sum((0, 1)), whole.segments.sum((0, 1)), rtol=0, atol=1e-9)


def test_larger_network_tiles_the_square():
    network, plane = make_network((20, 40, 8, 3), "relu6"), make_slice(20, scale=2.0)
    found = boundaries(network, plane)
    assert found.faces > 1000
    assert_tiles(found, network, plane)


def test_float32_networks_are_taken_as_they_are():
    network, plane = make_network((7, 8, 5, 3), "relu"), make_slice(7)
    single = MLP([weight.float() for weight in network.weights], "relu")
    found, expected = (boundaries(model, plane, layer="all") for model in (single, network))
    assert found.segments.dtype == found.corners.dtype == torch.float64
    assert torch.equal(found.segments, expected.segments)


def test_weights_that_require_gradients_are_taken():
    network = MLP([torch.nn.Parameter(weight) for weight in make_network((7, 8, 5, 3), "relu").weights], "relu")
    found = boundaries(network, make_slice(7))
    assert not found.segments.requires_grad
    assert not boundaries(network, make_slice(7), method="sampled", resolution=4).across.requires_grad


# --- exact, by hand, and degenerate


def test_two_lines_make_four_faces():
    found = boundaries(on_flat_slice([[1.0, 0.0, 0.0], [0.0, 2.0, -1.0]], "relu", [[1.0, 1.0]]), flat_slice())
    assert found.faces == 4
    assert sorted(found.areas.tolist()) == pytest.approx([0.5, 0.5, 1.5, 1.5])
    assert [segment[:3] for segment in sorted_segments(found)] == [(0, 0, 0), (0, 1, 0)]
    lines = {unit: sorted(ends.tolist()) for unit, ends in zip(found.unit.tolist(), found.segments, strict=True)}
    assert lines[0] == [pytest.approx([0.0, -1.0]), pytest.approx([0.0, 1.0])]
    assert lines[1] == [pytest.approx([-1.0, 0.5]), pytest.approx([1.0, 0.5])]


def test_both_boundaries_of_one_unit_cut_a_face():
    found = boundaries(on_flat_slice([[12.0, 0.0, 3.0], [0.0, 1.0, 0.1]], "relu6", [[1.0, 1.0]]), flat_slice())
    assert found.faces == 6
    x = {b: ends[0, 0].item() for u, b, ends in zip(found.unit, found.boundary.tolist(), found.segments, strict=True) if u == 0}
    assert x == {0: pytest.approx(-0.25), 1: pytest.approx(0.25)}


@pytest.mark.parametrize("factor", [1.0, 3.0, -1.0, -0.7])
def test_units_that_are_multiples_have_one_line_and_two_segments(factor):
    rows = torch.tensor([[1.0, 0.3, 0.1], [0.2, -1.0, 0.3]], dtype=torch.float64)
    network = on_flat_slice([*rows.tolist(), *(factor * rows).tolist()], "relu", [[1.0] * 4] * 2, [[1.0] * 2])
    found = boundaries(network, flat_slice(), layer=0)
    assert (found.faces, len(found.segments)) == (4, 4)
    assert_tiles(found, network, flat_slice())


@pytest.mark.parametrize("patch", [1, 10**6])
def test_boundary_along_a_side_of_a_face_is_found_without_a_chord(patch, monkeypatch):
    """The second layer is at 0 wherever the first is off: its code changes exactly where the first's does."""
    monkeypatch.setattr(arrangement, "PATCH", patch)
    network = on_flat_slice([[1.0, 0.4, 0.1], [-1.0, -0.4, -0.5]], "relu", [[2.0, 0.0], [-1.0, 0.0], [0.0, 1.0]], [[1.0] * 3])
    found = boundaries(network, flat_slice(), layer="all")
    # Unit 1 of the second layer is never above 0.
    assert [segment[:3] for segment in sorted_segments(found)] == [(0, 0, 0), (0, 1, 0), (1, 0, 0), (1, 2, 0)]
    by_name = {segment[:3]: sum(segment[3], ()) for segment in sorted_segments(found)}
    assert by_name[1, 0, 0] == pytest.approx(by_name[0, 0, 0])
    assert by_name[1, 2, 0] == pytest.approx(by_name[0, 1, 0])
    assert found.faces == 3


@pytest.mark.parametrize("patch", [1, 10**6])
def test_unit_that_touches_its_boundary_from_above_has_no_segment(patch, monkeypatch):
    """|z|, a unit of the second layer, is at 0 along a line and above it on both sides."""
    monkeypatch.setattr(arrangement, "PATCH", patch)
    rows = [[1.0, 0.4, 0.1], [-1.0, -0.4, -0.1], [0.3, 1.0, 0.2]]
    found = boundaries(on_flat_slice(rows, "relu", [[1.0, 1.0, 0.0]], [[1.0]]), flat_slice(), layer=1)
    assert (found.faces, len(found.segments)) == (4, 0)


def test_boundary_along_the_rim_of_the_square_is_none(monkeypatch):
    # Without rounding, so that the units are exactly at 0 there.
    monkeypatch.setattr(Slice, "basis", torch.eye(3, dtype=torch.float64)[[2, 0, 1]])
    found = boundaries(on_flat_slice([[1.0, 0.0, 1.0], [0.0, -1.0, 1.0]], "relu", [[1.0, 1.0]]), flat_slice(), layer="all")
    assert (found.faces, len(found.segments)) == (1, 0)


def test_faces_share_their_corners(monkeypatch):
    seen, refine = [], arrangement.refine
    monkeypatch.setattr(arrangement, "refine", lambda *arguments: seen.append(refine(*arguments)) or seen[-1])
    boundaries(make_network((7, 9, 5, 3), "relu6"), make_slice(7))
    assert len(seen) == 4
    for refined in seen:
        places = (refined.xy * 1e8).round()
        assert len({tuple(place) for place in places.tolist()}) == len(places)


@pytest.mark.parametrize("activation", PIECEWISE)
def test_dead_network_has_one_face_and_no_segment(activation):
    network = MLP([torch.zeros(5, 7), torch.zeros(5, 5), torch.zeros(2, 5)], activation)
    found = boundaries(network, make_slice(7), layer="all")
    assert (found.faces, len(found.segments)) == (1, 0)
    assert found.distance(make_slice(7).anchors).tolist() == [math.inf] * 3
    assert found.areas.tolist() == [4.0]


def test_all_boundaries_of_a_plane_through_the_origin_are_rays():
    """A ReLU network without biases is linear along rays: all lines of the first layer meet at 0, and all faces are wedges."""
    x1, x2 = make_slice(8).x1, make_slice(8).x2
    network, plane = make_network((8, 10, 6, 2), "relu"), Slice(x1, x2, -x1 - x2)
    first = boundaries(network, plane, layer=0)
    assert first.faces == 20
    found = boundaries(network, plane, layer="all")
    assert_tiles(found, network, plane)
    assert (found.corners.norm(dim=1) < 1e-12).sum() == found.faces
    assert float(found.areas.min()) > 1e-6


# Three points of a plane through 0, from two vectors x and y.
THROUGH_ZERO = {
    "0 itself": lambda x, y: (0 * x, x, y),
    "a point and its negative": lambda x, y: (x, -x, y),
    "0 at the centre": lambda x, y: (x, y, -x - y),
    "0 on a side": lambda x, y: (2 * x, -x, y),
    "0 outside": lambda x, y: (x, y, 0.3 * x + 0.4 * y),
}


@pytest.mark.parametrize("activation", ["relu", "relu6"])
@pytest.mark.parametrize("hidden", [2, 4, 6])
@pytest.mark.parametrize("points", THROUGH_ZERO.values(), ids=THROUGH_ZERO)
def test_noise_where_all_boundaries_meet_makes_no_faces(activation, hidden, points):
    network = make_network((8, 20, hidden + 1, 3), activation, seed=2)
    x, y = torch.randn(2, 8, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    plane = Slice(*points(x, y))
    found = boundaries(network, plane, layer="all")
    assert_tiles(found, network, plane)
    assert len(codes(network, plane, found.centroids, range(hidden)).unique(dim=0)) == found.faces
    assert float(found.areas.min()) > 1e-10
    # The points' rounding makes the plane miss 0 by more than float64 can tell from none.
    single = boundaries(network, Slice(*(point.float() for point in (plane.x1, plane.x2, plane.x3))), layer="all")
    assert (single.faces, len(single.segments)) == (found.faces, len(found.segments))


@pytest.mark.parametrize("points", THROUGH_ZERO.values(), ids=THROUGH_ZERO)
def test_deep_and_wide_network_ends_on_a_plane_through_the_origin(points):
    network = make_network((784, 100, 7, 10), "relu", seed=0)
    x, y = torch.randn(2, 784, generator=torch.Generator().manual_seed(0))
    found = boundaries(network, Slice(*points(x, y)), most_faces=10_000)
    assert float(found.areas.sum()) == pytest.approx(4.0, abs=1e-12)
    assert float(found.areas.min()) > 1e-12


def test_first_two_of_many_lines_through_a_point_are_nearly_parallel():
    """Where these two cross is known to a hundred-thousandth of what the others tell it by."""
    directions = [(1.0, 0.3), (1.0, 0.3 + 1e-5), *((math.cos(a), math.sin(a)) for a in range(1, 9))]
    network = on_flat_slice([[a, b, -0.3 * a - 0.17 * b] for a, b in directions], "relu", [[1.0] * 10] * 2, [[1.0] * 2])
    found = boundaries(network, flat_slice(), layer=0)
    assert (found.faces, len(found.segments)) == (20, 10)
    assert float(found.areas.min()) > 1e-7


@pytest.mark.parametrize("activation", PIECEWISE)
def test_units_that_cancel_have_no_segment_along_which_nothing_changes(activation):
    compared = 0
    for seed in range(12):
        stream = torch.Generator().manual_seed(seed)
        weights = [torch.randint(-2, 3, shape, generator=stream).double() for shape in ((6, 3), (5, 6), (4, 5), (4, 4), (2, 4))]
        network, plane = MLP(weights, activation), make_slice(3, seed=seed)
        found = boundaries(network, plane, layer="all")
        along = (found.segments[:, 1] - found.segments[:, 0]).flip(1) * torch.tensor([1.0, -1.0])
        assert (along.norm(dim=1) > 1e-9).all()
        offsets = torch.tensor([0, 6, 11, 15])
        own = (offsets[found.layer] + found.unit)[:, None]
        # A small step to both sides, far beyond the codes' own rounding: nudged, as what cancels leaves some there, too.
        beside = [found.segments.mean(1) + step * along / along.norm(dim=1, keepdim=True) for step in (1e-7, -1e-7)]
        one, other = (nudged_codes(network, plane, where).gather(1, own)[:, 0] for where in beside)
        assert ((one != other) | (along.norm(dim=1) < 1e-4)).all()
        compared += len(own)
    assert compared > 300


def test_boundary_through_a_corner_of_the_square_and_of_faces():
    """Diagonals through the square's corners, a third line through where they cross, and one that only touches a corner."""
    rows = [[1.0, 1.0, 0.0], [1.0, -1.0, 0.0], [1.0, 0.0, 0.0], [1.0, 1.0, 2.0]]
    found = boundaries(on_flat_slice(rows, "relu", [[1.0] * 4]), flat_slice())
    assert (found.faces, len(found.segments)) == (6, 3)
    assert float(found.areas.sum()) == pytest.approx(4.0)


def test_a_nearly_parallel_line_cuts_thin_faces():
    rows = [[1.0, 0.0, 0.0], [1.0, 1e-9, 0.0], [1.0, 0.0, 1e-10]]
    found = boundaries(on_flat_slice(rows, "relu", [[1.0] * 3]), flat_slice())
    assert found.faces == 6
    assert float(found.areas.min()) < 1e-9


@pytest.mark.parametrize("scale", [1e-90, 1e40])
def test_size_of_the_weights_of_a_relu_network_does_not_matter(scale):
    network, plane = make_network((7, 8, 4, 3), "relu"), make_slice(7)
    other = MLP([scale * weight for weight in network.weights], "relu")
    found, expected = (boundaries(model, plane, layer="all") for model in (other, network))
    assert (found.faces, len(found.segments)) == (expected.faces, len(expected.segments))
    torch.testing.assert_close(found.areas, expected.areas, rtol=0, atol=1e-12)


# --- distances


def test_distance_is_that_of_the_nearest_point_of_a_segment():
    segments = torch.tensor([[[0.0, 0.0], [1.0, 0.0]], [[0.5, 0.9], [0.5, 0.9]]], dtype=torch.float64)
    none = torch.zeros(2, dtype=torch.int64)
    found = ExactBoundaries((0,), segments, none, none, none, torch.zeros(0, 2), torch.zeros(1, dtype=torch.int64))
    points = torch.tensor([[0.5, 0.2], [-0.3, 0.4], [1.3, -0.4], [0.25, 0.0], [0.5, 0.8]])
    assert found.distance(points).tolist() == pytest.approx([0.2, 0.5, 0.5, 0.0, 0.1], abs=1e-7)


def test_distances_are_those_of_many_points_on_the_segments(monkeypatch):
    network, plane = make_network((7, 8, 5, 3), "relu"), make_slice(7)
    found = boundaries(network, plane)
    expected = found.distance(plane.anchors)
    share = torch.linspace(0, 1, 2001, dtype=torch.float64)[:, None, None]
    points = (found.segments[:, 0] + share * (found.segments[:, 1] - found.segments[:, 0])).reshape(-1, 2)
    sampled = torch.cdist(plane.anchors, points).amin(1)
    assert (sampled >= expected - 1e-12).all()
    torch.testing.assert_close(sampled, expected, rtol=0, atol=1e-3)
    monkeypatch.setattr(module, "PAIRS", 5)
    assert torch.equal(found.distance(plane.anchors), expected)


# --- sampled


def crossings(found, axis):
    """How many segments cross between neighbours on the grid: of each row `[R, R - 1]`, and of each column, `[R - 1, R]`."""
    counts = []
    for along, other in ((0, 1), (1, 0)):
        low, high = found.segments[:, :, other].aminmax(dim=1)
        segment, line = ((low[:, None] < axis) & (axis < high[:, None])).nonzero(as_tuple=True)
        start, end = found.segments[segment].unbind(1)
        share = (axis[line] - start[:, other]) / (end - start)[:, other]
        place = torch.searchsorted(axis, start[:, along] + share * (end - start)[:, along]) - 1
        inside = (place >= 0) & (place < len(axis) - 1)
        count = torch.zeros(len(axis), len(axis) - 1, dtype=torch.int64)
        counts.append(count.index_put_((line[inside], place[inside]), torch.ones(()).long(), accumulate=True))
    return counts[0], counts[1].T


@pytest.mark.parametrize("activation", PIECEWISE)
@pytest.mark.parametrize("layer", [0, -1, "all"])
def test_codes_differ_where_segments_cross(activation, layer):
    network, plane = make_network((7, 12, 5, 3), activation), make_slice(7)
    exact, sampled = (boundaries(network, plane, layer=layer, method=method, resolution=61) for method in ("exact", "sampled"))
    axis = (2 * torch.arange(61, dtype=torch.float64) + 1) / 61 - 1
    for between, differences in zip(crossings(exact, axis), (sampled.across, sampled.along), strict=True):
        more = between - differences
        # Between two points of a grid a unit may cross its boundary and come back.
        assert (more >= 0).all()
        assert (more % 2 == 0).all()
        assert (more > 0).float().mean() < 0.02
    assert sampled.across.sum() > 100


@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("layer", [1, "all"])
@pytest.mark.parametrize("band", [1, 300, 10**6])
def test_sampled_differences_are_those_of_the_codes(activation, layer, band, monkeypatch):
    monkeypatch.setattr(pixels, "BAND", band)
    network, plane = make_network((7, 9, 4, 3), activation), make_slice(7)
    found = boundaries(network, plane, layer=layer, method="sampled", resolution=13)
    axis = (2 * torch.arange(13, dtype=torch.float64) + 1) / 13 - 1
    coordinates = torch.stack(torch.meshgrid(axis, axis, indexing="xy"), 2).reshape(-1, 2)
    own = codes(network, plane, coordinates, [1] if layer == 1 else range(3)).view(13, 13, -1)
    assert torch.equal(found.across, own.diff(dim=1).abs().sum(2).int())
    assert torch.equal(found.along, own.diff(dim=0).abs().sum(2).int())
    for row in range(13):
        for column in range(13):
            beside = [place for place in ((row, column + 1), (row + 1, column)) if max(place) < 13]
            assert found.pixels[row, column] == any((own[row, column] != own[place]).any() for place in beside)


def test_a_grid_of_one_pixel_has_no_neighbours():
    found = boundaries(make_network((7, 9, 4, 3), "tanh"), make_slice(7), method="sampled", resolution=1)
    assert (found.across.shape, found.along.shape, found.pixels.tolist()) == ((1, 0), (0, 1), [[False]])


@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("depth", [1, 4])
def test_class_map_is_the_networks_answer(activation, depth, monkeypatch):
    weights, plane = list(make_network((7, 9, depth, 4), activation).weights), make_slice(7)
    # Units that are never below 0 would give one class everywhere.
    weights[-1] = weights[-1] - weights[-1].mean(1, keepdim=True)
    network = MLP(weights, activation)
    axis = (2 * torch.arange(11, dtype=torch.float64) + 1) / 11 - 1
    expected = [
        [forward(network.weights, activation, plane.points(torch.stack([x, y])[None])).argmax().item() for x in axis]
        for y in axis
    ]
    assert len({label for row in expected for label in row}) > 1
    for band in (1, 10**6):
        monkeypatch.setattr(pixels, "BAND", band)
        assert class_map(network, plane, 11).tolist() == expected


# --- refusals

NETWORK = make_network((7, 4, 3, 2), "relu")
PLANE = make_slice(7)


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ({"model": MLPStack([torch.ones(1, 4, 7), torch.ones(1, 2, 4)], "relu")}, "model must be an MLP; got MLPStack"),
        ({"model": torch.nn.Linear(7, 2)}, "model must have an activation that depends on its points; it has none"),
        ({"model": 3}, "model must be an MLP, a module or another callable; got int"),
        ({"model": MLP([torch.ones(2, 7)], "relu")}, "model must have a hidden layer; it has one weight matrix"),
        ({"model": MLP([torch.full((4, 7), math.nan), torch.ones(2, 4)], "relu")}, "weights must be finite; some are not"),
        ({"model": MLP(NETWORK.weights, "tanh")}, "'exact' needs an activation of linear pieces; tanh has none: use 'sampled'"),
        ({"slice": torch.zeros(3, 7)}, "slice must be a Slice; got Tensor"),
        ({"slice": make_slice(6)}, r"slice must be through points \[7\]; got \[6\]"),
        ({"method": "fast"}, "method must be one of exact, sampled; got 'fast'"),
        ({"layer": 2}, "layer, if not 'all', must be a whole number from -2 to 1; got 2"),
        ({"layer": -3}, "layer, if not 'all', must be a whole number from -2 to 1; got -3"),
        ({"layer": "last"}, "layer, if not 'all', must be a whole number from -2 to 1; got 'last'"),
        ({"layer": True}, "layer, if not 'all', must be a whole number from -2 to 1; got True"),
        ({"method": "sampled", "resolution": 0}, "resolution must be a whole number of at least 1; got 0"),
        ({"method": "sampled", "resolution": 2.0}, "resolution must be a whole number of at least 1; got 2.0"),
    ],
)
def test_bad_argument_is_refused(refused, arguments, expected):
    with refused(expected):
        boundaries(**{"model": NETWORK, "slice": PLANE, **arguments})


def test_class_map_refuses_alike(refused):
    with refused("model must have at least 2 logits, one per class of a map; it has one"):
        class_map(torch.nn.Linear(2, 1).double(), Slice(*torch.eye(3, 2).double()), 7)
    with refused(r"of='logits' needs a model of logits \[n, C\]; it gives \[n, 7, 1\]"):
        class_map(lambda x: x.unsqueeze(2), PLANE, 7)
    with refused("resolution must be a whole number of at least 1; got -1"):
        class_map(NETWORK, PLANE, -1)


@pytest.mark.parametrize("points", [[[0.0, 0.0]], torch.zeros(2), torch.zeros(2, 3), torch.zeros(2, 2, dtype=torch.int64)])
def test_distance_refuses_what_are_no_coordinates(refused, points):
    with refused(r"points must be a floating-point tensor of coordinates \[n, 2\]"):
        boundaries(NETWORK, PLANE).distance(points)


def test_faces_are_left_out_or_limited_on_request():
    network, plane = make_network((6, 9, 4, 3), "relu6"), make_slice(6)
    whole = boundaries(network, plane, layer="all")
    without = boundaries(network, plane, layer="all", faces=False)
    assert (without.faces, len(without.corners), len(without.areas)) == (0, 0, 0)
    for name in ("segments", "layer", "unit", "boundary"):
        assert torch.equal(getattr(whole, name), getattr(without, name))
    assert boundaries(network, plane, most_faces=whole.faces).faces == whole.faces
    with pytest.raises(TooManyRegionsError, match=f"the slice has more than {whole.faces - 1:,} linear regions"):
        boundaries(network, plane, most_faces=whole.faces - 1)
    for wrong in (0, 1.5, True):
        with pytest.raises(InvalidInputError, match="most_faces must be a whole number of at least 1; got"):
            boundaries(network, plane, most_faces=wrong)
