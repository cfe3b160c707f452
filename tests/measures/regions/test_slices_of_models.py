"""The boundaries on a slice of modules, against codes that are written by hand for each model, and where units are degenerate."""

from collections import Counter

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional as F  # noqa: N812  as everywhere

from sensitometer.measures.regions import pixels
from sensitometer.measures.regions.faces import arrangement
from sensitometer.measures.regions.slices import boundaries, class_map
from sensitometer.networks import MLP, initial_weights, layer_shapes
from sensitometer.paths import ANCHOR_ANGLES, ANCHOR_DISTANCE, Slice

# Faces of less area than this, and their codes, are at the mercy of rounding.
TINY = 1e-12
# Values this near to a boundary are at it, and candidates this near to the largest are equal to it.
TIE = 1e-11


class Model(nn.Module):
    """A forward pass of the modules given by name."""

    def __init__(self, run, **modules):
        super().__init__()
        self.run = run
        for name, module in modules.items():
            setattr(self, name, module)
        self.double().eval()

    def forward(self, x):
        return self.run(self, x)


def make_slice(*shape, scale=2.0, seed=5):
    return Slice(*scale * torch.randn(3, *shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64))


def flat_slice():
    """The plane whose points are the coordinates themselves."""
    angles = torch.tensor(ANCHOR_ANGLES, dtype=torch.float64)
    return Slice(*ANCHOR_DISTANCE * torch.stack([angles.cos(), angles.sin()], 1))


# --- the twin: codes of the forward pass, a list of [n, units]


def steps(z, *levels):
    """How many levels are below each value by more than rounding."""
    return sum((z > level + TIE).long() for level in levels).flatten(1)


def first_of(*candidates):
    """The number of the first of the largest, of tensors [n, units]."""
    z = torch.stack([candidate.flatten(1) for candidate in candidates])
    return (z >= z.amax(0) - TIE).int().argmax(0)


def pooled(z, size, stride):
    """The number of the first of the largest in each window of images [n, channels, height, width], and the largest."""
    n, channels, height, width = z.shape
    corners = [(i, j) for i in range(0, height - size + 1, stride) for j in range(0, width - size + 1, stride)]
    windows = torch.stack([z[:, :, i : i + size, j : j + size].reshape(n, channels, -1) for i, j in corners], 2)
    codes = (windows >= windows.amax(3, keepdim=True) - TIE).int().argmax(3)
    side = (height - size) // stride + 1
    return codes.flatten(1), windows.amax(3).view(n, channels, side, -1)


# --- what must hold


def assert_tiles(found, codes):
    """The faces tile the square, each with codes of its own that hold near all its corners."""
    assert float(found.areas.sum()) == pytest.approx(4.0, abs=1e-12)
    assert (found.areas > 0).all()
    own = codes(found.centroids)
    large = own[found.areas > TINY]
    assert len(large.unique(dim=0)) == len(large) > 0.99 * found.faces
    face = torch.arange(found.faces).repeat_interleave(found.offsets.diff())
    near = 0.99 * found.corners + 0.01 * found.centroids[face]
    same = (codes(near) == own[face]).all(1)
    assert same[found.areas[face] > TINY].all()
    assert_convex(found)


def assert_convex(found):
    next_ = torch.arange(len(found.corners)) + 1
    next_[found.offsets[1:] - 1] = found.offsets[:-1]
    along = found.corners[next_] - found.corners
    turn = along[:, 0] * along[next_][:, 1] - along[:, 1] * along[next_][:, 0]
    assert (turn >= -1e-12).all()


def crossings_of(found, a, b):
    """The parameters of the points at which segments cross the line from a to b, ascending, and the segments."""
    across = torch.stack([a[1] - b[1], b[0] - a[0]])
    side = (found.segments - a) @ across
    which = (side[:, 0] * side[:, 1] < 0).nonzero()[:, 0]
    share = side[which, 0] / (side[which, 0] - side[which, 1])
    points = found.segments[which, 0] + share[:, None] * (found.segments[which, 1] - found.segments[which, 0])
    t = (points - a) @ (b - a) / (b - a).square().sum()
    order = t.argsort()
    inside = (t[order] > 0) & (t[order] < 1)
    return t[order][inside], which[order][inside]


def assert_crossed(found, layer_codes, maxima, lines=5, seed=0):
    """Along random lines the codes change exactly where segments are crossed, those of the segments' units."""
    stream = torch.Generator().manual_seed(seed)
    crossed = 0
    for _ in range(lines):
        a, b = (2 * torch.rand(2, 2, generator=stream, dtype=torch.float64) - 1).unbind()
        t, which = crossings_of(found, a, b)
        first = torch.cat([torch.ones(1, dtype=torch.bool), t.diff() > 1e-9])[: len(t)]
        ends = torch.cat([torch.zeros(1), t[first], torch.ones(1)])
        gap_codes = layer_codes(a + ((ends[1:] + ends[:-1]) / 2)[:, None] * (b - a))
        expected = Counter()
        for layer, codes in enumerate(gap_codes):
            changes = codes.diff(dim=0).abs()
            for place, unit in changes.nonzero().tolist():
                expected[place, layer, unit] = 1 if layer in maxima else int(changes[place, unit])
        places = (first.long().cumsum(0) - 1).tolist()
        assert Counter(zip(places, found.layer[which].tolist(), found.unit[which].tolist(), strict=True)) == expected
        dense = torch.rand(400, generator=stream, dtype=torch.float64)
        clear = (dense[:, None] - ends).abs().amin(1) > 1e-9
        gap = torch.searchsorted(ends, dense[clear]) - 1
        for codes, there in zip(gap_codes, layer_codes(a + dense[clear, None] * (b - a)), strict=True):
            assert torch.equal(codes[gap], there)
        crossed += len(t)
    return crossed


def assert_exact(model, plane, codes, maxima=()):
    """`codes` are those by hand, of points; `maxima` the layers that are one."""
    found = boundaries(model, plane, layer="all")

    def layer_codes(coordinates):
        with torch.no_grad():
            return codes(plane.points(coordinates))

    assert_tiles(found, lambda coordinates: torch.cat(layer_codes(coordinates), 1))
    assert assert_crossed(found, layer_codes, maxima) > 0
    return found


# --- models, each with its codes


def biases():
    a, b, c = nn.Linear(5, 9), nn.Linear(9, 8), nn.Linear(8, 3)
    model = Model(lambda m, x: m.c(F.relu(m.b(F.relu(m.a(x))))), a=a, b=b, c=c)

    def codes(x):
        z = a(x)
        return [steps(z, 0.0), steps(b(z.clamp(min=0)), 0.0)]

    return model, codes, ()


def residual():
    a, b, c, d = nn.Linear(5, 9), nn.Linear(9, 5), nn.Linear(5, 7), nn.Linear(7, 2)
    model = Model(lambda m, x: m.d(F.relu(m.c(x + F.relu(m.b(F.relu(m.a(x))))))), a=a, b=b, c=c, d=d)

    def codes(x):
        one = a(x)
        two = b(one.clamp(min=0))
        return [steps(one, 0.0), steps(two, 0.0), steps(c(x + two.clamp(min=0)), 0.0)]

    return model, codes, ()


def pre_activation_lives_on():
    """The pre-activations are needed afterwards, as they were."""
    a, b, c = nn.Linear(5, 8), nn.Linear(8, 6), nn.Linear(6, 2)

    def run(m, x):
        z = m.a(x)
        return m.c(F.relu(m.b(z - 2 * F.relu(z))))

    def codes(x):
        z = a(x)
        return [steps(z, 0.0), steps(b(z - 2 * z.clamp(min=0)), 0.0)]

    return Model(run, a=a, b=b, c=c), codes, ()


def leaky():
    a, b, c, d = nn.Linear(5, 8), nn.Linear(8, 8), nn.Linear(8, 6), nn.Linear(6, 2)
    p = nn.PReLU(8)
    p.weight.data = torch.linspace(-0.5, 1.5, 8, dtype=torch.float64)
    model = Model(lambda m, x: m.d(F.relu(m.c(m.p(m.b(F.leaky_relu(m.a(x), 0.2)))))), a=a, b=b, c=c, d=d, p=p)

    def codes(x):
        one = a(x)
        two = b(torch.where(one > 0, one, 0.2 * one))
        return [steps(one, 0.0), steps(two, 0.0), steps(c(torch.where(two > 0, two, p.weight * two)), 0.0)]

    return model, codes, ()


def clamps():
    a, b, c, d = (nn.Linear(*shape) for shape in ((5, 7), (7, 7), (7, 7), (7, 6)))
    e, f = nn.Linear(6, 6), nn.Linear(6, 2)

    def run(m, x):
        h = m.c(m.b(F.hardtanh(m.a(x), -0.7, 0.4)).clamp(-0.1, 0.3)).abs()
        return m.f(F.relu6(m.e(10 * F.hardsigmoid(8 * m.d(h)))))

    def codes(x):
        one = a(x)
        two = b(torch.minimum(torch.maximum(one, one.new_tensor(-0.7)), one.new_tensor(0.4)))
        three = c(two.clip(-0.1, 0.3))
        four = 8 * d(torch.where(three > 0, three, -three))
        five = e(10 * ((four + 3) / 6).clip(0, 1))
        return [steps(one, -0.7, 0.4), steps(two, -0.1, 0.3), steps(three, 0.0), steps(four, -3.0, 3.0), steps(five, 0.0, 6.0)]

    return Model(run, a=a, b=b, c=c, d=d, e=e, f=f), codes, ()


def maximum_and_minimum_of_two():
    a, b, c, d, e = (nn.Linear(*shape) for shape in ((5, 7), (5, 7), (7, 6), (7, 6), (6, 2)))

    def run(m, x):
        h = torch.maximum(m.a(x), m.b(x))
        return m.e(torch.minimum(m.c(h), m.d(h)))

    def codes(x):
        h = torch.where(a(x) > b(x), a(x), b(x))
        return [steps(a(x) - b(x), 0.0), steps(c(h) - d(h), 0.0)]

    return Model(run, a=a, b=b, c=c, d=d, e=e), codes, ()


def concatenation():
    a, b, c = nn.Linear(5, 7), nn.Linear(12, 8), nn.Linear(20, 6)

    def run(m, x):
        one = torch.cat([x, F.relu(m.a(x))], 1)
        return m.c(torch.cat([one, F.relu(m.b(one))], 1)).amax(1, keepdim=True)

    def codes(x):
        one = torch.cat([x, a(x).clamp(min=0)], 1)
        z = c(torch.cat([one, b(one).clamp(min=0)], 1))
        return [steps(a(x), 0.0), steps(b(one), 0.0), first_of(*z.split(1, 1))]

    return Model(run, a=a, b=b, c=c), codes, (2,)


def maxima_over_dimensions():
    a, b, c = nn.Linear(5, 28), nn.Linear(7, 12), nn.Linear(4, 2)
    model = Model(lambda m, x: m.c(m.b(m.a(x).view(-1, 4, 7).amax(1)).view(-1, 3, 4).amin(1)), a=a, b=b, c=c)

    def codes(x):
        z = a(x).split(7, 1)
        y = b(torch.stack(z).amax(0)).split(4, 1)
        return [first_of(*z), first_of(*(-one for one in y))]

    return model, codes, (0, 1)


def pooling_of_zeros():
    """Conv, ReLU, max-pooling: many windows hold several zeros."""
    a, b, c = nn.Conv2d(1, 3, 3, padding=1), nn.Linear(27, 6), nn.Linear(6, 2)
    layers = {"a": a, "r": nn.ReLU(inplace=True), "p": nn.MaxPool2d(2), "b": b, "c": c}
    model = Model(lambda m, x: m.c(F.relu(m.b(m.p(m.r(m.a(x))).flatten(1)))), **layers)

    def codes(x):
        z = a(x)
        code, h = pooled(z.clamp(min=0), 2, 2)
        return [steps(z, 0.0), code, steps(b(h.flatten(1)), 0.0)]

    return model, codes, (1,)


def overlapping_windows():
    a, b, c = nn.Conv2d(2, 3, 2), nn.Conv2d(3, 2, 2), nn.Linear(2, 2)
    model = Model(lambda m, x: m.c(F.max_pool2d(m.b(F.max_pool2d(m.a(x), 3, 1)), 2).flatten(1)), a=a, b=b, c=c)

    def codes(x):
        one, h = pooled(a(x), 3, 1)
        two, _ = pooled(b(h), 2, 2)
        return [one, two]

    return model, codes, (0, 1)


def average_pooling():
    a, n, b, c = nn.Conv2d(2, 3, 2), nn.BatchNorm2d(3), nn.Linear(12, 6), nn.Linear(6, 2)
    n.running_mean, n.running_var = torch.linspace(-0.5, 0.5, 3), torch.linspace(0.5, 1.5, 3)
    model = Model(lambda m, x: m.c(F.relu(m.b(F.avg_pool2d(F.relu(m.n(m.a(x))), 2).flatten(1)))), a=a, n=n, b=b, c=c)

    def codes(x):
        z = a(x)
        mean, scale = (value.view(1, 3, 1, 1) for value in (n.running_mean, (n.running_var + n.eps) ** -0.5))
        z = (z - mean) * scale
        h = z.clamp(min=0).view(-1, 3, 2, 2, 2, 2).mean((3, 5))
        return [steps(z, 0.0), steps(b(h.flatten(1)), 0.0)]

    return model, codes, ()


VECTORS = [
    *(biases, residual, pre_activation_lives_on, leaky, clamps, maximum_and_minimum_of_two, concatenation),
    maxima_over_dimensions,
]
IMAGES = {pooling_of_zeros: (1, 6, 6), overlapping_windows: (2, 6, 6), average_pooling: (2, 5, 5)}


def made(build, seed=1):
    torch.manual_seed(seed)
    return build()


@pytest.mark.parametrize("build", VECTORS)
def test_boundaries_are_where_codes_by_hand_change(build):
    model, codes, maxima = made(build)
    found = assert_exact(model, make_slice(5), codes, maxima)
    assert set(found.layer.tolist()) == set(found.layers)


@pytest.mark.parametrize("build", IMAGES)
def test_boundaries_of_models_of_images_are_where_codes_by_hand_change(build):
    model, codes, maxima = made(build)
    found = assert_exact(model, make_slice(*IMAGES[build]), codes, maxima)
    assert set(found.layer.tolist()) == set(found.layers)


@pytest.mark.parametrize("build", [pooling_of_zeros, maxima_over_dimensions, residual])
def test_patches_do_not_show(build, monkeypatch):
    model, _, _ = made(build)
    plane = make_slice(*IMAGES.get(build, (5,)), scale=0.2 if build in IMAGES else 1.0)
    whole = boundaries(model, plane, layer="all")
    for size in (1, 200):
        monkeypatch.setattr(arrangement, "PATCH", size)
        found = boundaries(model, plane, layer="all")
        assert (found.faces, len(found.segments)) == (whole.faces, len(whole.segments))
        torch.testing.assert_close(found.areas.sort().values, whole.areas.sort().values, rtol=0, atol=1e-12)
        torch.testing.assert_close(found.segments.sum((0, 1)), whole.segments.sum((0, 1)), rtol=0, atol=1e-8)


# --- by hand


def on_plane(*rows):
    """A module of units a p + b q + c, of points [n, 2] that are the coordinates themselves."""
    layer = nn.Linear(2, len(rows))
    layer.weight.data = torch.tensor([row[:2] for row in rows], dtype=torch.float64)
    layer.bias.data = torch.tensor([row[2] for row in rows], dtype=torch.float64)
    return layer


def lines_of(found, layer):
    """The segments of a layer, as pairs of rounded ends."""
    own = found.segments[found.layer == layer]
    return sorted(sorted(tuple(round(c, 6) + 0.0 for c in end) for end in ends) for ends in own.tolist())


def test_three_planes_meet_in_a_point_and_cut_three_faces():
    """No winner's region is cut along the lines of the two others; one plane is never the largest, one is there twice."""
    rows = [(2.0, 0.0, 0.1), (-1.0, 1.0, 0.1), (-1.0, -1.0, 0.1), (0.0, 0.0, -9.0), (2.0, 0.0, 0.1)]
    model = Model(lambda m, x: m.a(x).amax(1, keepdim=True), a=on_plane(*rows))
    found = boundaries(model, flat_slice())
    assert (found.faces, len(found.segments)) == (3, 3)
    assert lines_of(found, 0) == [[(-1.0, 0.0), (0.0, 0.0)], [(0.0, 0.0), (0.333333, -1.0)], [(0.0, 0.0), (0.333333, 1.0)]]
    assert (set(found.unit.tolist()), set(found.boundary.tolist())) == ({0}, {0})
    assert sorted(found.offsets.diff().tolist()) == [4, 4, 5]


def test_winner_of_the_middle_alone_is_found():
    """It is the largest at no corner of the face."""
    rows = [(1.0, 0.0, 0.0), (-1.0, 0.0, 0.0), (0.0, 1.0, 0.0), (0.0, -1.0, 0.0), (0.0, 0.0, 0.5)]
    found = boundaries(Model(lambda m, x: m.a(x).amax(1, keepdim=True), a=on_plane(*rows)), flat_slice())
    assert (found.faces, len(found.segments)) == (5, 8)
    assert sorted(found.areas.tolist()) == pytest.approx([0.75, 0.75, 0.75, 0.75, 1.0])
    assert sorted(found.offsets.diff().tolist()) == [4, 4, 4, 4, 4]


def test_minimum_is_cut_like_the_maximum_of_the_negatives():
    rows = [(2.0, 0.0, 0.1), (-1.0, 1.0, 0.1), (-1.0, -1.0, 0.1)]
    largest, smallest = on_plane(*rows), on_plane(*([-c for c in row] for row in rows))
    one = boundaries(Model(lambda m, x: m.a(x).amax(1, keepdim=True), a=largest), flat_slice())
    other = boundaries(Model(lambda m, x: m.a(x).amin(1, keepdim=True), a=smallest), flat_slice())
    assert lines_of(one, 0) == lines_of(other, 0)
    assert one.areas.sort().values.tolist() == pytest.approx(other.areas.sort().values.tolist())


def largest_of(*rows, then=lambda h: h):
    """The maximum of ReLU units, and of what is made of them."""
    model = Model(lambda m, x: then(F.relu(m.a(x))).amax(1, keepdim=True), a=on_plane(*rows))
    return boundaries(model, flat_slice(), layer="all")


DEAD = (0.0, 0.0, -1.0)


def test_first_of_several_zeros_wins_and_has_no_boundary_with_itself():
    """Where q is small the first unit wins, whether it is 0 or not; where p is small, too, the second wins above its boundary."""
    found = largest_of((1.0, 0.0, 0.0), (0.0, 1.0, 0.0))
    assert lines_of(found, 1) == [[(-1.0, 0.0), (0.0, 0.0)], [(0.0, 0.0), (1.0, 1.0)]]
    assert found.faces == 5


def test_winner_changes_along_a_line_of_the_stage_below():
    found = largest_of((1.0, 0.0, 0.0), (-1.0, 0.0, 0.0))
    assert lines_of(found, 1) == [[(0.0, -1.0), (0.0, 1.0)]]
    # Neither winner is the first of those that are equal on the line.
    found = largest_of(DEAD, (1.0, 0.0, 0.0), (-1.0, 0.0, 0.0))
    assert lines_of(found, 1) == [[(0.0, -1.0), (0.0, 1.0)]]
    assert found.faces == 2


def test_winner_that_touches_an_earlier_candidate_has_no_boundary():
    model = Model(lambda m, x: torch.stack([F.relu(m.b(x)), m.a(x).abs()]).amax(0), a=on_plane((1.0, 0.0, 0.0)), b=on_plane(DEAD))
    found = boundaries(model, flat_slice(), layer="all")
    assert lines_of(found, 0) == [] or lines_of(found, 1) == []
    assert found.names[-1] == "amax"
    assert lines_of(found, 2) == []
    assert found.faces == 2


@pytest.mark.parametrize("patch", [1, 10**6])
def test_boundary_along_part_of_a_line_of_the_stage_below(patch, monkeypatch):
    """On p = 0 the first two are equal, and the largest where q is below 0.3."""
    monkeypatch.setattr(arrangement, "PATCH", patch)
    rows = [(1.0, 0.0, 0.0), (-1.0, 0.0, 0.0), (0.0, 1.0, 1.0)]
    found = largest_of(*rows, then=lambda h: h - torch.tensor([0.0, 0.0, 1.3], dtype=h.dtype))
    assert lines_of(found, 1) == [
        [(-0.7, 1.0), (0.0, 0.3)],
        [(0.0, -1.0), (0.0, 0.3)],
        [(0.0, 0.3), (0.7, 1.0)],
    ]
    assert found.faces == 4


def test_three_candidates_that_are_equal_on_one_line_have_one_segment():
    """The second of 0, p and 2 p is never the largest alone."""
    rows = [(0.0, 0.0, 0.0), (1.0, 0.0, 0.0), (2.0, 0.0, 0.0)]
    found = boundaries(Model(lambda m, x: m.a(x).amax(1, keepdim=True), a=on_plane(*rows)), flat_slice())
    assert (found.faces, lines_of(found, 0)) == (2, [[(0.0, -1.0), (0.0, 1.0)]])


def test_windows_with_the_same_two_candidates_have_a_segment_each():
    model = Model(lambda m, x: F.max_pool1d(m.a(x).unsqueeze(1), 3, 1), a=on_plane((0, 0, -9), (1, 0, 0), (0, 1, 0), (0, 0, -9)))
    found = boundaries(model, flat_slice())
    assert lines_of(found, 0) == [[(-1.0, -1.0), (1.0, 1.0)]] * 2
    assert (found.unit.tolist(), found.faces) == ([0, 1], 2)


def test_first_of_equal_candidates_is_not_cut_by_the_second():
    model = Model(
        lambda m, x: torch.cat([m.a(x), m.a(x)], 1).amax(1, keepdim=True), a=on_plane((1.0, 0.3, 0.1), (-0.2, 1.0, 0.0))
    )
    found = boundaries(model, flat_slice())
    assert (found.faces, len(found.segments)) == (2, 1)


@pytest.mark.parametrize("pool", [nn.MaxPool2d(2), nn.MaxPool2d(3, 1), nn.AdaptiveMaxPool2d(1)])
def test_noise_where_all_boundaries_meet_makes_no_faces(pool):
    """Without biases all candidates are 0 at 0, too."""
    torch.manual_seed(3)
    a, b = nn.Conv2d(1, 3, 3, bias=False), nn.Conv2d(3, 4, 1, bias=False)
    model = Model(lambda m, x: F.relu(m.b(m.p(F.relu(m.a(x))))).flatten(1), a=a, b=b, p=pool)
    x, y = torch.randn(2, 1, 6, 6, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    plane = Slice(x, y, -x - y)
    found = boundaries(model, plane, layer="all")

    def codes(coordinates):
        with torch.no_grad():
            z = a(plane.points(coordinates))
            h = z.clamp(min=0)
            size = {2: (2, 2), 3: (3, 1)}.get(getattr(pool, "kernel_size", 0), (4, 1))
            winners, h = pooled(h, *size)
            return torch.cat([steps(z, 0.0), winners, steps(b(h), 0.0)], 1)

    assert_tiles(found, codes)
    assert float(found.areas.min()) > 1e-6
    assert (found.corners.norm(dim=1) < 1e-12).sum() == found.faces


# --- the door


def as_module(network):
    layers = []
    for weight in network.weights:
        layers += [nn.Linear(weight.shape[1], weight.shape[0], bias=False), nn.ReLU()]
        layers[-2].weight.data = weight
    return nn.Sequential(*layers[:-1]).eval()


@pytest.mark.parametrize("through_zero", [False, True])
def test_a_network_as_a_module_has_the_same_boundaries(through_zero):
    weights = initial_weights(layer_shapes(7, 12, 6, 3), "relu", 1.0, 1)
    network, plane = MLP([weight.double() for weight in weights], "relu"), make_slice(7)
    if through_zero:
        plane = Slice(plane.x1, plane.x2, -plane.x1 - plane.x2)
    one, other = (boundaries(model, plane, layer="all") for model in (network, as_module(network)))
    assert (one.faces, len(one.segments)) == (other.faces, len(other.segments))
    torch.testing.assert_close(one.areas.sort().values, other.areas.sort().values, rtol=0, atol=1e-12)
    assert one.layer.bincount().tolist() == other.layer.bincount().tolist()
    assert (one.names, other.names) == (tuple(f"layer {n}" for n in range(1, 6)), ("1", "3", "5", "7", "9"))


def test_points_of_a_network_may_be_images():
    network = MLP(initial_weights(layer_shapes(12, 8, 4, 3), "relu", 1.0, 1), "relu")
    flat, image = make_slice(12), make_slice(3, 2, 2)
    assert torch.equal(flat.x1, image.x1.flatten())
    assert torch.equal(boundaries(network, flat).segments, boundaries(network, image).segments)
    assert torch.equal(class_map(network, flat, 9), class_map(network, image, 9))


def test_layers_are_calls_of_activations():
    model, _, _ = made(pooling_of_zeros)
    plane = make_slice(1, 6, 6, scale=0.5)
    everything = boundaries(model, plane, layer="all")
    assert (everything.layers, everything.names) == ((0, 1, 2), ("r", "p", "relu"))
    for layer in (0, 1, -1):
        found = boundaries(model, plane, layer=layer)
        assert found.names == (everything.names[layer],)
        own = everything.segments[everything.layer == layer % 3]
        torch.testing.assert_close(found.segments.sum((0, 1)), own.sum((0, 1)), rtol=0, atol=1e-9)
        assert len(found.segments) == len(own)


def test_single_precision_models_are_taken_as_they_are():
    model, _, _ = made(residual)
    plane = make_slice(5)
    single = boundaries(model.float(), plane, layer="all")
    double = boundaries(model.double(), plane, layer="all")
    assert torch.equal(single.segments, double.segments)


def test_boundaries_say_how_many_they_are():
    found = boundaries(MLP([torch.eye(2), torch.ones(1, 2)], "relu"), flat_slice())
    assert repr(found) == "ExactBoundaries(2 segments of 1 layer, 4 faces)"


@pytest.mark.parametrize("layer", ["all", 0, -1])
@pytest.mark.parametrize("band", [1, 300, 10**6])
def test_sampled_differences_are_those_of_the_codes(layer, band, monkeypatch):
    """Maxima are not counted."""
    monkeypatch.setattr(pixels, "BAND", band)
    model, codes, maxima = made(pooling_of_zeros)
    plane = make_slice(1, 6, 6)
    found = boundaries(model, plane, layer=layer, method="sampled", resolution=9)
    axis = (2 * torch.arange(9, dtype=torch.float64) + 1) / 9 - 1
    coordinates = torch.stack(torch.meshgrid(axis, axis, indexing="xy"), 2).reshape(-1, 2)
    with torch.no_grad():
        elementwise = [code for place, code in enumerate(codes(plane.points(coordinates))) if place not in maxima]
    own = torch.cat(elementwise if layer == "all" else [elementwise[layer]], 1).view(9, 9, -1)
    assert torch.equal(found.across, own.diff(dim=1).abs().sum(2).int())
    assert torch.equal(found.along, own.diff(dim=0).abs().sum(2).int())
    assert found.names == (("relu",) * 2 if layer == "all" else ("relu",))
    assert found.across.sum() > 0


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("band", [1, 10**6])
def test_class_map_is_the_models_answer(dtype, band, monkeypatch):
    monkeypatch.setattr(pixels, "BAND", band)
    model, _, _ = made(average_pooling)
    plane = make_slice(2, 5, 5)
    axis = (2 * torch.arange(7, dtype=torch.float64) + 1) / 7 - 1
    with torch.no_grad():
        # Without this one class would be the largest everywhere.
        model.c.bias.data -= model(plane.points(torch.tensor([[0.3, 0.2]], dtype=torch.float64)))[0]
        model.to(dtype)
        points = [plane.points(torch.stack([x, y])[None]).to(dtype) for y in axis for x in axis]
        expected = torch.cat([model(point).argmax(1) for point in points]).view(7, 7)
    assert len(expected.unique()) > 1
    assert torch.equal(class_map(model, plane, 7), expected)


def test_functions_are_models_too():
    found = boundaries(lambda x: (x - 0.5).relu(), flat_slice())
    assert lines_of(found, 0) == [[(-1.0, 0.5), (1.0, 0.5)], [(0.5, -1.0), (0.5, 1.0)]]
    assert class_map(lambda x: x - torch.tensor([0.0, 0.1]), flat_slice(), 2).tolist() == [[0, 0], [1, 0]]


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ({"model": nn.Sequential(nn.Linear(2, 3), nn.GELU())}, r"piecewise-linear model: gelu at module '1' is not"),
        ({"model": nn.Linear(2, 3)}, "model must have an activation that depends on its points; it has none"),
        ({"model": nn.Linear(2, 3), "method": "sampled"}, "no activation"),
        ({"model": nn.Sequential(nn.Linear(2, 3), nn.BatchNorm1d(3), nn.ReLU())}, "model must be in evaluation mode"),
        ({"model": nn.Sequential(nn.Linear(5, 3), nn.ReLU())}, "model does not take"),
        ({"layer": 1}, "layer, if not 'all', must be a whole number from -1 to 0; got 1"),
        ({"layer": 1, "method": "sampled"}, "layer, if not 'all', must be a whole number from -1 to 0; got 1"),
        ({"slice": torch.zeros(3, 2)}, "slice must be a Slice; got Tensor"),
    ],
)
def test_bad_argument_is_refused(refused, arguments, expected):
    model = nn.Sequential(nn.Linear(2, 3), nn.ReLU()).double()
    with refused(expected):
        boundaries(**{"model": model, "slice": flat_slice(), **arguments})


# --- any model

WIDTH = 6


def windows_of(z, windows):
    """The winners of units over some columns each, and the largest."""
    parts = [z[:, window] for window in windows]
    winners = [(part >= part.amax(1, keepdim=True) - TIE).int().argmax(1) for part in parts]
    return torch.stack(winners, 1), torch.stack([part.amax(1) for part in parts], 1)


def pool_of_relu(z):
    codes, h = windows_of(z.clamp(min=0), [[0, 1], [1, 2, 3], [3, 4, 5]])
    return [steps(z, 0.0), codes], h


def overlapping_pool(z):
    codes, h = windows_of(z, [[0, 1, 2], [1, 2, 3], [2, 3, 4], [3, 4, 5]])
    return [codes], h


def largest_beside(z):
    codes, h = windows_of(z, [[0, 1, 2], [3, 4, 5]])
    return [codes], torch.cat([z, h], 1)


def smallest(z):
    codes, h = windows_of(-z, [[0, 2, 4], [1, 3, 5]])
    return [codes], -h


# The operation on pre-activations [n, 6]; its twin, which returns the codes and the result; which codes are of maxima; the width.
OPERATIONS = {
    "relu": (F.relu, lambda z: ([steps(z, 0.0)], torch.where(z > 0, z, 0.0)), (), 6),
    "leaky": (lambda z: F.leaky_relu(z, 0.3), lambda z: ([steps(z, 0.0)], torch.where(z > 0, z, 0.3 * z)), (), 6),
    "relu6": (lambda z: F.relu6(6 * z), lambda z: ([steps(6 * z, 0.0, 6.0)], (6 * z).clip(0, 6)), (), 6),
    "hardtanh": (F.hardtanh, lambda z: ([steps(z, -1.0, 1.0)], z.clip(-1, 1)), (), 6),
    "clamp": (lambda z: z.clamp(-0.4, 0.6), lambda z: ([steps(z, -0.4, 0.6)], z.clip(-0.4, 0.6)), (), 6),
    "one-sided clamp": (lambda z: z.clamp(max=0.2), lambda z: ([steps(z, 0.2)], z.clip(max=0.2)), (), 6),
    "abs": (torch.abs, lambda z: ([steps(z, 0.0)], torch.where(z > 0, z, -z)), (), 6),
    "residual": (lambda z: z - 2 * F.relu(z), lambda z: ([steps(z, 0.0)], torch.where(z > 0, -z, z)), (), 6),
    "concatenation": (
        *(lambda z: torch.cat([F.relu(z), z], 1), lambda z: ([steps(z, 0.0)], torch.cat([z.clip(min=0), z], 1))),
        *((), 12),
    ),
    "maximum": (
        lambda z: torch.maximum(z[:, :3], z[:, 3:]),
        lambda z: ([steps(z[:, :3] - z[:, 3:], 0.0)], torch.where(z[:, :3] > z[:, 3:], z[:, :3], z[:, 3:])),
        *((), 3),
    ),
    "average pooling": (
        lambda z: F.avg_pool1d(F.relu(z).unsqueeze(1), 2).squeeze(1),
        lambda z: ([steps(z, 0.0)], (z.clip(min=0)[:, ::2] + z.clip(min=0)[:, 1::2]) / 2),
        *((), 3),
    ),
    "pooling": (lambda z: F.max_pool1d(F.relu(z).unsqueeze(1), 3, 2, 1).squeeze(1), pool_of_relu, (1,), 3),
    "overlapping pooling": (lambda z: F.max_pool1d(z.unsqueeze(1), 3, 1).squeeze(1), overlapping_pool, (0,), 4),
    "largest beside": (lambda z: torch.cat([z, z.view(-1, 2, 3).amax(2)], 1), largest_beside, (0,), 8),
    "smallest": (lambda z: z.view(-1, 3, 2).amin(1), smallest, (0,), 2),
}


class Chain(nn.Module):
    """Linear layers with one of `OPERATIONS` behind each, and another linear layer at the end."""

    def __init__(self, kinds, inputs):
        super().__init__()
        self.kinds = kinds
        widths = [inputs, *(OPERATIONS[kind][3] for kind in kinds)]
        self.layers = nn.ModuleList([nn.Linear(width, WIDTH) for width in widths])
        self.double().eval()

    def forward(self, x):
        for kind, layer in zip(self.kinds, self.layers, strict=False):
            x = OPERATIONS[kind][0](layer(x))
        return self.layers[-1](x)

    def codes(self, x):
        codes = []
        for kind, layer in zip(self.kinds, self.layers, strict=False):
            here, x = OPERATIONS[kind][1](layer(x))
            codes += here
        return codes

    @property
    def maxima(self):
        layers = []
        for kind in self.kinds:
            layers += [place in OPERATIONS[kind][2] for place in range(1 + (kind == "pooling"))]
        return [layer for layer, maximum in enumerate(layers) if maximum]


@settings(max_examples=7)
@given(
    kinds=st.lists(st.sampled_from(sorted(OPERATIONS)), min_size=1, max_size=4),
    inputs=st.integers(2, 5),
    seed=st.integers(0, 10**6),
    scale=st.sampled_from([1.0, 4.0]),
)
def test_boundaries_of_any_chain_are_where_codes_change(kinds, inputs, seed, scale):
    torch.manual_seed(seed)
    model, plane = Chain(kinds, inputs), make_slice(inputs, scale=scale, seed=seed)
    found = boundaries(model, plane, layer="all")

    def layer_codes(coordinates):
        with torch.no_grad():
            return model.codes(plane.points(coordinates))

    assert_tiles(found, lambda coordinates: torch.cat(layer_codes(coordinates), 1))
    assert_crossed(found, layer_codes, model.maxima, lines=3)
