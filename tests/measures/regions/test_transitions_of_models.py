"""
Exact counts of modules: against codes in float64, between all positions and at them.

`model_twins.py` has the twin, and `example_models.py` the modules. A module is counted along several paths, because its export
takes most of the time.
"""

import itertools
import os
from pathlib import Path

import numpy as np
import pytest
import torch
from example_models import (
    ANY_SHAPE,
    MOVED,
    OF_IMAGES,
    OF_VECTORS,
    ONE,
    OPERATIONS,
    RESNET_NAMES,
    TIES,
    Function,
    Residual,
    ResNet20,
    line,
    normals,
    seeded,
    sequential,
    stacked,
    three_paths,
)
from hypothesis import given, settings
from hypothesis import strategies as st
from model_twins import changes, check, counts, module_codes, pieces, sampled, unexplained
from reference import rational_transitions
from torch import nn
from torch.nn import functional

from sensitometer import paths
from sensitometer.measures import transitions
from sensitometer.networks import MLP, layer_shapes

# --- the twin


def test_codes_of_the_twin_by_hand():
    model = nn.Sequential(nn.ReLU6(), Function(lambda x: torch.maximum(x, 1 - x)), Function(lambda x: x.amax(1)))
    codes, kinds = module_codes(model, torch.tensor([[-1.0, 0.25], [7.0, 7.0], [0.0, 3.0]]))
    assert kinds == ["boundaries", "boundaries", "winners"]
    assert [code.tolist() for code in codes] == [[[0, 1], [2, 2], [0, 1]], [[0, 0], [1, 1], [0, 1]], [[0], [0], [1]]]


def test_the_twin_sees_what_is_missing():
    model, path = nn.ReLU(), line(-1.0, 2.0)
    (positions,) = transitions(model, path, positions=True).positions
    assert unexplained(model, path, [positions]) == []
    assert unexplained(model, path, [torch.cat([positions, positions])]) == [(0, pytest.approx(1 / 3), 2)]
    with pytest.raises(AssertionError, match="change inside the piece"):
        unexplained(model, path, [positions[:0]])


# --- any operations, one after another


@settings(max_examples=7)
@given(
    st.tuples(st.integers(1, 3), st.integers(2, 5), st.integers(2, 5)),
    st.lists(st.sampled_from([*OF_IMAGES, *ANY_SHAPE]), min_size=1, max_size=5),
    st.lists(st.sampled_from([*OF_VECTORS, *ANY_SHAPE]), max_size=3),
    st.integers(0, 10**6),
)
def test_transitions_of_any_model_of_images_are_the_changes_of_its_codes(shape, names, tail, seed):
    model = stacked(shape, names, tail, seed)
    check(model, *three_paths(*shape, seed=seed))


@settings(max_examples=8)
@given(
    st.integers(1, 4),
    st.lists(st.sampled_from([*OF_VECTORS, *ANY_SHAPE]), min_size=1, max_size=6),
    st.integers(0, 10**6),
    st.booleans(),
)
def test_transitions_of_any_model_of_vectors_are_the_changes_of_its_codes(D, names, seed, through_0):
    model = stacked((D,), [], names, seed)
    several = three_paths(D, seed=seed)
    if through_0:
        x, y = several[0].vertices[:2]
        several += [paths.Polyline(torch.stack([x, -2 * x, y]))]
    check(model, *several)


def whole(model, seed):
    """Give a module small whole numbers as parameters, so that units touch boundaries and each other."""
    stream = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(torch.randint(-2, 3, parameter.shape, generator=stream))
    return model


@settings(max_examples=8)
@given(
    st.integers(1, 3),
    st.lists(st.sampled_from([name for name in (*OF_VECTORS, *ANY_SHAPE) if name != "normalisation"]), min_size=1, max_size=5),
    st.integers(0, 10**6),
)
def test_whole_numbers_put_vertices_and_kinks_on_boundaries(D, names, seed):
    model = whole(stacked((D,), [], names, seed), seed)
    stream = torch.Generator().manual_seed(seed)
    vertices = torch.randint(-3, 4, (2, 5, D), generator=stream).float()
    check(model, paths.Polyline(vertices[0]), paths.Polyline(vertices[1], closed=False))


@settings(max_examples=8)
@given(st.sampled_from(["relu", "relu6", "hardtanh"]), st.integers(1, 4), st.integers(2, 4), st.integers(0, 10**6))
def test_whole_numbers_against_rational_arithmetic(activation, width, depth, seed):
    stream = torch.Generator().manual_seed(seed)
    shapes = layer_shapes(3, width, depth, 2)
    network = MLP([torch.randint(-2, 3, shape, generator=stream).float() for shape in shapes], activation)
    path = paths.Polyline(torch.randint(-3, 4, (4, 3), generator=stream).float(), closed=False)
    expected = rational_transitions(network.weights, activation, path.vertices)
    assert counts(sequential(network), path) == counts(network, path) == expected


# --- operations one by one


@pytest.mark.parametrize("name", OPERATIONS)
def test_transitions_are_the_changes_of_the_codes(name):
    shape, build, names = OPERATIONS[name]
    model = seeded(build)
    several = three_paths(*shape)
    check(model, *several)
    assert list(transitions(model, several).names) == names


@pytest.mark.parametrize("name", MOVED)
def test_points_may_be_moved_to_another_dimension(name):
    shape, build = MOVED[name]
    check(seeded(build), *three_paths(*shape), together=False)


# --- sampling


@pytest.mark.parametrize(
    "name",
    ["convolution of sequences", "maxout", "everything alive", "maximum that broadcasts", "adaptive max-pooling of sequences"],
)
def test_samples_closer_than_transitions_miss_none(name):
    shape, build, _ = OPERATIONS[name]
    model = seeded(build)
    for path in three_paths(*shape):
        found = transitions(model, path, positions=True)
        ends = [torch.cat([layer, layer[:1] + path.span]) if path.closed else layer for layer in found.positions]
        gap = min(float(layer.diff()[layer.diff() > 1e-9].min()) for layer in ends if len(layer) > 1)
        for samples in (2**k for k in range(4, 16)):
            few = sampled(model, path, samples)
            assert all(one <= exact for one, exact in zip(few, found.per_layer.tolist(), strict=True))
            if path.span / samples < gap / 2:
                assert few == found.per_layer.tolist()
                break
        else:
            pytest.fail("two transitions of one activation are too close to one another for this test")


# --- units on their boundaries


def test_a_jump_over_two_boundaries_counts_twice():
    model = Function(lambda x: functional.hardtanh(1e12 * x))
    assert counts(model, line(-1.0, 1.0)) == [2]
    assert counts(nn.ReLU6(), line(-1.0, 8.0)) == [2]
    assert counts(nn.ReLU6(), paths.Polyline(torch.tensor([[-1.0], [8.0]]))) == [4]


# Heights of the vertices of a line, and its transitions.
ON_A_BOUNDARY = {(-1.0, 0.0, 1.0): 1, (-1.0, 0.0, -1.0): 0, (1.0, 0.0, 1.0): 2, (0.0, 1.0): 1, (0.0, 0.0): 0}


@pytest.mark.parametrize(
    "model", [nn.ReLU(), Function(torch.abs), nn.LeakyReLU(-0.5), Function(lambda x: torch.maximum(x, 0 * x))]
)
def test_a_vertex_on_a_boundary(model):
    """The code of a point on a boundary is that of the piece below it."""
    for heights, expected in ON_A_BOUNDARY.items():
        assert counts(model, line(*heights)) == [expected]
        assert counts(model, line(*reversed(heights))) == [expected]


def test_a_vertex_at_which_candidates_are_equal():
    """The first candidate is 0, the second is the point: of equal ones the first wins."""
    model = Function(lambda x: torch.cat([0 * x, x], 1).amax(1, keepdim=True))
    for heights, expected in ON_A_BOUNDARY.items():
        assert counts(model, line(*heights)) == [expected]


def test_a_path_through_a_kink_of_the_layer_below():
    """The absolute value touches 0 from above, which makes two transitions of the unit above it, and from below none."""
    for sign, expected in ((1.0, 2), (-1.0, 0)):
        model = nn.Sequential(Function(torch.abs), Function(lambda x, sign: sign * x, number=sign), nn.ReLU())
        assert counts(model, line(-1.0, 2.0)) == [1, expected]
        assert counts(model, line(-1.0, 0.0, 2.0)) == [1, expected]


def test_units_that_cross_together():
    model = seeded(lambda: nn.Sequential(nn.Linear(2, 5, bias=False), nn.ReLU(), nn.Linear(5, 4, bias=False), nn.ReLU()))
    path = paths.Polyline(torch.tensor([[-1.0, 0.5], [2.0, -1.0]]), closed=False)
    found = transitions(model, path, positions=True)
    assert found.per_layer[0] == 5
    for positions in found.positions:
        torch.testing.assert_close(positions, torch.full_like(positions, 1 / 3))
    check(model, path)


CONSTANT = (paths.Polyline(torch.ones(3, 4)), paths.Ellipse(torch.ones(4), torch.zeros(4), torch.zeros(4)))


@pytest.mark.parametrize("path", CONSTANT, ids=["polyline", "ellipse"])
def test_a_path_that_stays_at_a_point_has_no_transitions(path):
    model = seeded(lambda: nn.Sequential(nn.Linear(4, 6), nn.ReLU(), Function(lambda x: x.view(-1, 2, 3).amax(2)), nn.ReLU()))
    assert counts(model, path) == [0, 0, 0]


def test_an_unused_activation_divides_nothing_and_is_left_out():
    model = seeded(lambda: Function(lambda x, a, b: (a(x).relu(), b(x).relu())[1], nn.Linear(3, 4), nn.Linear(3, 2)))
    found = transitions(model, three_paths(3)[0])
    assert found.names == ("relu",)
    assert torch.equal(found.per_layer, transitions(nn.Sequential(model.parts[1], nn.ReLU()), three_paths(3)[0]).per_layer)


def test_where_equal_candidates_are_overtaken_the_order_does_not_count():
    """The third candidate is the mean of the others: it is never the largest but where all are equal, at one place."""
    rows = {"a": [1.0, 0.0], "b": [0.0, 1.0], "mean": [0.5, 0.5], "mixture": [0.25, 0.75]}
    model = Function(lambda x, layer: layer(x).amax(1, keepdim=True), nn.Linear(2, 4, bias=False))
    for names in itertools.permutations(rows):
        model.parts[0].weight.data.copy_(torch.tensor([rows[name] for name in names]))
        several = [
            paths.Polyline(torch.tensor([[2.0, 0.3], [0.7, 3.1]]), closed=False),
            paths.Polyline(torch.tensor([[2.0, 0.3], [0.7, 3.1], [-1.0, 0.6]])),
            paths.Ellipse(torch.tensor([0.1, 0.2]), torch.tensor([1.3, 0.4]), torch.tensor([-0.2, 1.7])),
        ]
        assert transitions(model, several).total.tolist() == [1, 2, 2]
        check(model, *several)


@pytest.mark.parametrize("name", TIES)
def test_of_equal_candidates_the_first_wins_all_along(name):
    shape, build = TIES[name]
    model = seeded(build)
    for seed in range(8):
        check(model, *three_paths(*shape, seed=seed))


def test_an_ellipse_that_touches_a_boundary_from_below_does_not_cross_it():
    model = nn.ReLU()
    for a, b, c in ((3, 4, 5), (-3, 4, 5), (8, -15, 17), (7, 24, 25), (20, 21, 29)):
        centre, u, v = (torch.tensor([float(number)]) for number in (-c, a, b))
        assert counts(model, paths.Ellipse(centre, u, v)) == [0]


# --- models that are written in other ways, and numbers of other sizes


def test_a_model_may_work_in_place_on_its_input():
    for build in (
        lambda: nn.Sequential(nn.ReLU(inplace=True), nn.Linear(3, 2), nn.ReLU()),
        lambda: Function(lambda x: x.sub_(0.5).relu()),
    ):
        several = three_paths(3)
        before = [path.basis.clone() for path in several]
        check(seeded(build), *several)
        for path, basis in zip(several, before, strict=True):
            assert torch.equal(path.basis, basis)


def test_a_model_may_count_its_calls(refused):
    def count(module, inputs):
        module.calls.add_(1)

    model = Function(lambda x: x.relu())
    model.register_buffer("calls", torch.zeros(()))
    model.register_forward_pre_hook(count)
    check(model, *three_paths(3))
    # A hook that returns something puts it in the place of the points.
    model.register_forward_pre_hook(lambda module, inputs: module.calls)
    with refused("model must depend on its points; its output is constant"):
        transitions(model, three_paths(3)[0])


def test_units_without_a_dimension_of_their_own():
    """Pre-activations `[n]`, as of models with one output."""
    check(Function(lambda x: x.sum(1).relu()), *three_paths(3))
    check(Function(lambda x: torch.maximum(x[:, 0].relu(), x[:, 1] - 0.5)), *three_paths(3))
    check(seeded(lambda: nn.Sequential(nn.Linear(3, 1), Function(lambda x: x.squeeze(1)), nn.ReLU())), *three_paths(3))


def test_pieces_of_size_0():
    assert counts(Function(lambda x: torch.cat([x[:, :0].relu(), x.relu()], 1)), line(-1.0, 1.0)) == [0, 1]


def test_channels_last_and_back():
    """torch wrote a view, because the points were contiguous there."""
    model = Function(lambda x: x.permute(0, 2, 3, 1).relu().permute(0, 3, 1, 2).flatten(1).abs())
    check(model, *three_paths(2, 4, 2))


class Optional(nn.Module):
    def forward(self, x, mask=None, scale=2.0):
        return scale * x.relu()


class Any(nn.Module):
    def forward(self, *inputs, **options):
        return inputs[0].relu()


@pytest.mark.parametrize("kind", [Optional, Any])
def test_any_signature(kind):
    assert counts(kind(), three_paths(3)[0]) == counts(nn.ReLU(), three_paths(3)[0])


def test_code_that_asks_for_the_number_of_points():
    def forward(x, token):
        tokens = token.expand(len(x), 1, -1)
        return torch.cat([tokens, x], 1).relu().reshape(len(x), -1)

    check(Function(forward, constant=ONE), *three_paths(2, 3))


def test_a_callable_of_float64():
    model = seeded(Residual).double()
    path = paths.Polyline(normals(3, 3).double())
    assert counts(lambda x: model(x), path) == counts(model, path)


def test_very_deep_models():
    network = MLP([torch.eye(2)] * 1200, "relu")
    assert int(transitions(network, paths.Polyline(torch.tensor([[1.0, 2.0], [-1.0, -3.0]]), closed=False)).total) == 2 * 1199


def test_small_and_large_numbers():
    """Two layers without biases; no scale of the first changes the positions."""
    layers = [nn.Linear(3, 4, bias=False), nn.ReLU(), nn.Linear(4, 4, bias=False), nn.ReLU()]
    model, several = whole(nn.Sequential(*layers).double(), 1), three_paths(3)
    weight = model[0].weight.clone()
    expected = transitions(model, several, positions=True).positions
    for scale in (1e-200, 1e-30, 1e30, 1e200):
        model[0].weight.data.copy_(scale * weight)
        found = transitions(model, several, positions=True).positions
        for mine, theirs in zip(itertools.chain(*found), itertools.chain(*expected), strict=True):
            torch.testing.assert_close(mine, theirs, rtol=0, atol=1e-9)


# --- a real network

ROOT = Path(__file__).parents[3]
WEIGHTS = ROOT.parent / "shared" / "models" / "resnet20-cifar10.safetensors"
IMAGES = Path(os.environ.get("SENSITOMETER_DATA", ROOT)) / "cifar10" / "cifar-10-batches-bin" / "test_batch.bin"


@pytest.fixture(scope="module")
def resnet():
    """The trained network, and the segment between two test images, of which a share is taken."""
    if not WEIGHTS.exists() or not IMAGES.exists():
        pytest.skip(f"{WEIGHTS} and $SENSITOMETER_DATA/cifar10 are not here")
    load_file = pytest.importorskip("safetensors.torch").load_file
    model = ResNet20()
    missing = model.load_state_dict(load_file(WEIGHTS), strict=False)
    assert not missing.unexpected_keys
    assert all(name.endswith("num_batches_tracked") for name in missing.missing_keys)
    records = np.fromfile(IMAGES, np.uint8).reshape(-1, 3073)[:2]
    images = torch.from_numpy(records[:, 1:].reshape(2, 3, 32, 32)).double() / 255
    assert torch.equal(model.eval()(images.float()).argmax(1), torch.from_numpy(records[:, 0].astype(np.int64)))

    def segment(share):
        return paths.Polyline(torch.stack([images[0], images[0] + share * (images[1] - images[0])]), closed=False)

    return model, segment


def batches(model, path, t):
    """The codes at many points, in batches, in float64."""
    parts = [module_codes(model, path.points(part))[0] for part in t.split(64)]
    return [torch.cat(codes) for codes in zip(*parts, strict=True)]


@pytest.mark.real_data
def test_a_real_network_has_74_transitions_on_a_short_segment(resnet):
    """Codes are constant between all positions, and each activation's changes from piece to piece are its transitions."""
    model, segment = resnet
    path = segment(0.001)
    found = transitions(model, path, positions=True)
    assert list(found.names) == RESNET_NAMES
    assert int(found.total) == 74
    begins, stops, _ = pieces(path, found.positions)
    inside = torch.stack([begins + share * (stops - begins) for share in (0.3, 0.7)], 1).flatten()
    for codes, count in zip(batches(model, path, inside), found.per_layer, strict=True):
        assert torch.equal(codes[::2], codes[1::2])
        assert int(changes(codes[:-1], codes[1:], "boundaries").sum()) == int(count)


@pytest.mark.real_data
@pytest.mark.slow
def test_a_real_network_at_4096_samples(resnet):
    model, segment = resnet
    path = segment(0.001)
    counted = [int(codes.diff(dim=0).abs().sum()) for codes in batches(model, path, path.parameters(4096))]
    assert counted == counts(model, path)


@pytest.mark.real_data
def test_a_real_network_has_693_transitions_on_a_longer_segment(resnet):
    model, segment = resnet
    assert int(transitions(model, segment(0.01)).total) == 693
