"""Exact counts against a plain walk in float64 and against sampling; sampled counts against the paper's sum."""

import math
from types import SimpleNamespace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from reference import codes, crossings, piece_values, rational_transitions, sampled_transitions

from sensitometer import Configuration, load_dataset, paths, train
from sensitometer.measures.regions.graph import stack_graph
from sensitometer.measures.regions.transitions import exact_crossings, transitions
from sensitometer.networks import MLP, MLPStack, initial_weights, layer_shapes

PIECEWISE = ("relu", "relu6", "hardtanh", "hardsigmoid")


def make_network(inputs=6, width=8, depth=3, activation="relu", scale=1.0, seed=1, classes=3):
    return MLP(initial_weights(layer_shapes(inputs, width, depth, classes), activation, scale, seed), activation)


def make_stack(networks):
    return MLPStack(
        [torch.stack(layer) for layer in zip(*(one.weights for one in networks), strict=True)], networks[0].activation
    )


def loop(vertices=5, inputs=6, seed=3, scale=3.0, closed=True):
    return paths.Polyline(scale * torch.randn(vertices, inputs, generator=torch.Generator().manual_seed(seed)), closed)


def ellipse(inputs=6, seed=4, scale=2.0):
    centre, u, v = scale * torch.randn(3, inputs, generator=torch.Generator().manual_seed(seed))
    return paths.Ellipse(centre, u, v)


def twin(network, path):
    return [len(layer) for layer in crossings(network.weights, network.activation, path)]


def all_crossings(network, path):
    """Stage, unit, boundary and place of each crossing."""
    _, changes = exact_crossings(stack_graph(make_stack([network])), [path], keep=True)
    return SimpleNamespace(**{name: torch.from_numpy(value) for name, value in changes._asdict().items()})


# --- against the plain walk


@pytest.fixture(scope="module")
def trained():
    """Networks of each piecewise-linear activation, trained on the digits, of depths 2 to 20; of each shape the seeds in turn."""
    dataset = load_dataset("digits", train_points=400)
    found = {}
    for activation in PIECEWISE:
        configurations = [
            Configuration("digits", width, depth, activation, scale, "momentum", rate, 64, steps=150, seed=seed)
            for seed in range(1, 26)
            for width, depth, scale, rate in ((16, 2, 1.0, 0.05), (24, 5, 1.5, 0.03), (12, 10, 1.0, 0.02), (16, 20, 1.0, 0.01))
        ]
        results = train(configurations, dataset, jacobian_points=0)
        found[activation] = [result.network for result in results if result.row["state"] != "diverged"]
    return dataset, found


@pytest.mark.parametrize("activation", PIECEWISE)
@pytest.mark.parametrize("several", [slice(8), pytest.param(slice(8, None), marks=pytest.mark.slow)], ids=["some", "100"])
def test_counts_of_trained_networks_are_those_of_float64(trained, activation, several):
    dataset, networks = trained
    images = dataset.test.x.view(-1, 1, 8, 8)
    for place, network in enumerate(networks[activation][several]):
        path = paths.translation(images[place])
        assert transitions(network, path).per_layer.tolist() == twin(network, path), place


@pytest.mark.parametrize("activation", PIECEWISE)
@pytest.mark.parametrize("seeds", [range(12), pytest.param(range(12, 200), marks=pytest.mark.slow)], ids=["some", "200"])
def test_counts_of_untrained_networks_are_those_of_float64(activation, seeds):
    for seed in seeds:
        depth, width = 2 + seed * 7 % 19, (8, 16, 32)[seed % 3]
        network = make_network(12, width, depth, activation, (0.5, 1.0, 1.3)[seed % 5 % 3], seed)
        path = loop(6, 12, seed)
        assert transitions(network, path).per_layer.tolist() == twin(network, path), seed


def dead_somewhere(network, path):
    """Whether all units of a hidden layer are off at some point: pre-activations above it are then 0, or -0.5, exactly."""
    t = torch.linspace(0, path.span, 1000).double()
    layers = range(len(network.weights) - 1)
    return any((piece_values(network.weights, network.activation, layer, path, t) == 0).all(1).any() for layer in layers)


@pytest.mark.parametrize("activation", PIECEWISE)
@pytest.mark.parametrize("seeds", [range(8), pytest.param(range(8, 100), marks=pytest.mark.slow)], ids=["some", "100"])
def test_counts_along_ellipses_are_those_of_float64(activation, seeds):
    for seed in seeds:
        depth, width = 2 + seed * 7 % 12, (6, 16, 30)[seed % 3]
        network = make_network(8, width, depth, activation, (1.0, 1.5)[seed % 2], seed)
        path = ellipse(8, seed) if seed % 4 else paths.random_ellipse(8, torch.Generator().manual_seed(seed))
        found = transitions(network, path).per_layer.tolist()
        if dead_somewhere(network, path):
            assert found == sampled_transitions(network.weights, activation, path, 2**15), seed
        else:
            assert found == twin(network, path), seed


@settings(max_examples=40)
@given(st.sampled_from(PIECEWISE), st.integers(1, 16), st.integers(2, 8), st.integers(0, 10**6), st.integers(2, 6), st.booleans())
def test_counts_of_any_network_are_those_of_float64(activation, width, depth, seed, M, closed):
    network, path = make_network(5, width, depth, activation, 1.5, seed), loop(M, 5, seed, closed=closed)
    assert transitions(network, path).per_layer.tolist() == twin(network, path)


# --- sampling


@pytest.mark.parametrize("activation", [*PIECEWISE, "tanh"])
@pytest.mark.parametrize("path", [loop(), loop(closed=False), ellipse()], ids=["loop", "line", "ellipse"])
def test_sampled_counts_are_the_papers_sum(activation, path):
    stack = make_stack([make_network(activation=activation, scale=2.0, depth=4, seed=seed) for seed in (1, 2)])
    for samples in (2, 3, 50, 5000):
        found = transitions(stack, path, method="sampled", samples=samples)
        expected = [sampled_transitions(network.weights, activation, path, samples) for network in stack]
        assert found.per_layer.tolist() == expected


@pytest.mark.parametrize("activation", PIECEWISE)
@pytest.mark.parametrize("path", [loop(), loop(closed=False), ellipse()], ids=["loop", "line", "ellipse"])
def test_sampling_tends_to_the_exact_count(activation, path):
    network = make_network(activation=activation, depth=4, width=12, seed=5)
    exact = int(transitions(network, path).total)
    found = [int(transitions(network, path, method="sampled", samples=2**k).total) for k in (4, 8, 12, 16)]
    assert found == sorted(found)
    assert found[0] < exact
    assert exact - 2 <= found[-1] <= exact


@settings(max_examples=40)
@given(st.sampled_from(PIECEWISE), st.integers(1, 10), st.integers(2, 5), st.integers(0, 10**6), st.booleans())
def test_samples_closer_than_the_crossings_of_each_unit_miss_none(activation, width, depth, seed, straight):
    network = make_network(4, width, depth, activation, 1.5, seed)
    path = loop(3, 4, seed) if straight else ellipse(4, seed)
    found = all_crossings(network, path)
    gap = path.span
    for layer, unit in set(zip(found.stage.tolist(), found.unit.tolist(), strict=True)):
        t = found.t[(found.stage == layer) & (found.unit == unit)].sort().values
        gap = min([gap, *t.diff().tolist(), float(t[0] + path.span - t[-1]) if len(t) > 1 else gap])
    exact = transitions(network, path).per_layer
    for samples in (16, 256, 4096, 2**17):
        sampled = transitions(network, path, method="sampled", samples=samples).per_layer
        assert (sampled <= exact).all()
        if path.span / (samples - 1) < 0.99 * gap:
            assert torch.equal(sampled, exact)
            break


def test_a_jump_over_two_boundaries_counts_twice():
    network = MLP([torch.tensor([[1.0]]), torch.ones(1, 1)], "relu6")
    line = paths.Polyline(torch.tensor([[-1.0], [8.0]]), closed=False)
    for method in ("exact", "sampled"):
        assert int(transitions(network, line, method=method, samples=2).total) == 2
    back = paths.Polyline(line.vertices)
    for method in ("exact", "sampled"):
        assert int(transitions(network, back, method=method, samples=2).total) == 4


def test_samples_do_not_depend_on_chunks(monkeypatch):
    network, path = make_network(activation="relu6", scale=3.0), loop()
    expected = transitions(network, path, method="sampled", samples=1000, positions=True)
    monkeypatch.setattr("sensitometer.measures.sampled.CHUNK", 1)
    found = transitions(network, path, method="sampled", samples=1000, positions=True)
    assert torch.equal(found.per_layer, expected.per_layer)
    for mine, theirs in zip(found.positions, expected.positions, strict=True):
        assert torch.equal(mine, theirs)


def test_sampled_positions_are_between_the_samples():
    network, path = make_network(activation="relu6", scale=3.0), loop()
    exact = transitions(network, path, positions=True)
    found = transitions(network, path, method="sampled", samples=2**16, positions=True)
    assert torch.equal(found.per_layer, exact.per_layer)
    for mine, theirs in zip(found.positions, exact.positions, strict=True):
        torch.testing.assert_close(mine, theirs, rtol=0, atol=0.5 * path.span / 2**16 + 1e-6)


# --- what does not change a count


@settings(max_examples=40)
@given(
    st.sampled_from(PIECEWISE),
    st.integers(1, 12),
    st.integers(2, 6),
    st.integers(0, 10**6),
    st.integers(3, 6),
    st.floats(0.1, 0.9),
)
def test_reversed_rotated_and_split_paths_have_the_same_count(activation, width, depth, seed, M, share):
    network, path = make_network(4, width, depth, activation, 1.5, seed), loop(M, 4, seed)
    expected = transitions(network, path).per_layer
    split = torch.lerp(path.vertices[0], path.vertices[1], share)
    for vertices in (
        path.vertices.flip(0),
        path.vertices.roll(1, 0),
        torch.cat([path.vertices[:1], split.unsqueeze(0), path.vertices[1:]]),
    ):
        assert torch.equal(transitions(network, paths.Polyline(vertices)).per_layer, expected)


@settings(max_examples=25)
@given(st.sampled_from(PIECEWISE), st.integers(2, 16), st.integers(2, 6), st.integers(0, 10**6), st.floats(0, 6.28))
def test_reversed_and_rotated_ellipses_have_the_same_count(activation, width, depth, seed, angle):
    network, path = make_network(4, width, depth, activation, 1.5, seed), ellipse(4, seed)
    expected = transitions(network, path).per_layer
    assert torch.equal(transitions(network, paths.Ellipse(path.centre, path.u, -path.v)).per_layer, expected)
    c, u, v = (one.double() for one in (path.centre, path.u, path.v))
    turned = paths.Ellipse(c, math.cos(angle) * u + math.sin(angle) * v, math.cos(angle) * v - math.sin(angle) * u)
    double = MLP([weight.double() for weight in network.weights], activation)
    assert torch.equal(transitions(double, turned).per_layer, expected)


@settings(max_examples=25)
@given(st.integers(1, 16), st.integers(2, 7), st.integers(0, 10**6), st.floats(0.01, 100))
def test_scaled_weights_of_a_relu_network_have_the_same_count(width, depth, seed, factor):
    network = make_network(4, width, depth, "relu", 1.0, seed)
    scaled = MLP([factor * weight for weight in network.weights], "relu")
    for path in (loop(4, 4, seed), ellipse(4, seed)):
        assert torch.equal(transitions(scaled, path).per_layer, transitions(network, path).per_layer)


# --- units on their boundaries


def test_dead_units_have_code_0():
    """The only unit of the first layer is off on half of the line, where all above it is exactly 0."""
    network = MLP([torch.tensor([[1.0]]), torch.tensor([[1.0], [-1.0], [2.0]]), torch.ones(2, 3), torch.ones(1, 2)], "relu")
    line = paths.Polyline(torch.tensor([[2.0], [-2.0]]), closed=False)
    found = transitions(network, line, positions=True)
    # Units 0 and 2 go from above 0 to 0, unit 1 stays at most 0.
    assert found.per_layer.tolist() == [1, 2, 2]
    assert [layer.tolist() for layer in found.positions] == [[0.5], [0.5, 0.5], [0.5, 0.5]]
    assert transitions(network, line).per_layer.tolist() == [1, 2, 2]
    assert transitions(network, line, method="sampled", samples=1001).per_layer.tolist() == [1, 2, 2]


@settings(max_examples=40)
@given(
    st.sampled_from(PIECEWISE),
    st.integers(1, 8),
    st.integers(2, 4),
    st.integers(0, 10**6),
    st.sampled_from([0.25, 0.5, 1.0, 2.0, 3.0, 4.0, 8.0]),
    st.sampled_from([torch.float32, torch.float64]),
)
def test_lines_through_0_where_all_units_cross_together(activation, width, depth, seed, factor, dtype):
    """A line from a point through 0 to a multiple of it, or, if rounding has moved that, past 0 at a ten millionth."""
    network = make_network(4, width, depth, activation, 1.5, seed)
    x = loop(2, 4, seed).vertices[0]
    line = paths.Polyline(torch.stack([x, -factor * x]), closed=False)
    expected = rational_transitions(network.weights, activation, line.vertices)
    network = MLP([weight.to(dtype) for weight in network.weights], activation)
    for path in (line, paths.Polyline(line.vertices.flip(0), closed=False)):
        assert transitions(network, path).per_layer.tolist() == expected
        assert transitions(network, path, positions=True).per_layer.tolist() == expected


@pytest.mark.parametrize("activation", ["relu", "relu6"])
@pytest.mark.parametrize("seed", range(3))
def test_ellipses_through_0_where_all_units_cross_together(activation, seed):
    """Codes at many points, and next to 0; in 0 all are 0."""
    network = make_network(8, 12, 5, activation, 1.5, seed)
    x, y = loop(2, 8, seed).vertices.double()
    through_0 = (
        (paths.fitted_ellipse(x, 0 * x, y), [math.pi]),
        (paths.fitted_ellipse(0 * x, x, y), [math.pi / 3]),
        (paths.Ellipse(y, x, y), [3 * math.pi / 2]),
        (paths.Ellipse(0 * x, x, 0 * x), [math.pi / 2, 3 * math.pi / 2]),
    )
    for path, in_0 in through_0:
        t = path.parameters(2**13)
        for at in in_0:
            t = torch.cat([t[(t - at).abs() > 1e-6], at + torch.tensor([-1e-6, 0.0, 1e-6], dtype=torch.float64)]).sort().values
        expected = []
        for layer in range(4):
            of_layer = codes(activation, piece_values(network.weights, activation, layer, path, t))
            of_layer[torch.isin(t, torch.tensor(in_0, dtype=torch.float64))] = 0
            expected.append(int((of_layer - of_layer.roll(1, 0)).abs().sum()))
        assert transitions(network, path).per_layer.tolist() == expected


def test_deep_networks_along_lines_through_0():
    """Rounding once made pieces without end between the crossings that coincide."""
    weights = make_network(64, 50, 10, seed=2).weights
    x = loop(2, 64).vertices[0]
    for dtype in (torch.float32, torch.float64):
        network = MLP([weight.to(dtype) for weight in weights], "relu")
        for factor in (1.7, 2.0):
            vertices = torch.stack([x, -factor * x]).to(dtype)
            found = transitions(network, paths.Polyline(vertices, closed=False)).per_layer
            assert found[0] == 50
            assert found.max() < 150
            assert torch.equal(transitions(network, paths.Polyline(vertices.flip(0), closed=False)).per_layer, found)


@pytest.mark.parametrize("activation", ["relu6", "hardtanh", "hardsigmoid"])
@pytest.mark.parametrize("size", [1e8, 1e12])
def test_counts_of_large_weights_are_those_of_rational_numbers(activation, size):
    for seed in range(3):
        weights = [size * weight for weight in make_network(4, 6, 4, activation, seed=seed).weights]
        line = loop(3, 4, seed, closed=False)
        expected = rational_transitions(weights, activation, line.vertices)
        assert transitions(MLP(weights, activation), line).per_layer.tolist() == expected


@pytest.mark.parametrize("activation", ["relu6", "hardtanh", "hardsigmoid"])
def test_boundaries_that_float64_cannot_tell_apart_are_refused(activation, refused):
    weights = [1e14 * weight for weight in make_network(4, 6, 4, activation).weights]
    for path in (loop(3, 4), ellipse(4)):
        with refused(r"pre-activations at layer 1 reach \d\.\de\+1\d, and float64 cannot tell boundaries that are \d apart"):
            transitions(MLP(weights, activation), path)


def test_zero_weights_make_no_transitions():
    network = MLP([torch.zeros(4, 3), torch.ones(4, 4), torch.ones(2, 4)], "relu")
    for path in (loop(4, 3), ellipse(3)):
        assert int(transitions(network, path).total) == 0


def test_crossings_that_coincide_all_count():
    network = MLP([torch.ones(5, 2), torch.eye(5), torch.ones(1, 5)], "relu")
    line = paths.Polyline(torch.tensor([[-1.0, 0.0], [2.0, 0.0]]), closed=False)
    found = transitions(network, line, positions=True)
    assert found.per_layer.tolist() == [5, 5]
    torch.testing.assert_close(torch.stack(found.positions), torch.full((2, 5), 1 / 3, dtype=torch.float64))


def test_units_that_cross_together_cancel_exactly_above():
    """Units 0 and 1 are alike: what subtracts the one from the other is 0 everywhere, and never above it."""
    stream = torch.Generator().manual_seed(1)
    first, second = torch.randn(3, 4, generator=stream), torch.randn(4, 3, generator=stream)
    first[1] = first[0]
    second[0] = torch.tensor([-1.0, 1.0, 0.0])
    second[1] = torch.tensor([-2.0, 2.0, 0.0])
    network = MLP([first, second, torch.randn(4, 4, generator=stream), torch.ones(2, 4)], "relu")
    for path in (loop(6, 4, 2), ellipse(4, 3)):
        assert transitions(network, path).per_layer.tolist() == sampled_transitions(network.weights, "relu", path, 2**15)
        found = all_crossings(network, path)
        assert not ((found.stage == 1) & (found.unit < 2)).any()


def test_a_crossing_at_the_end_of_a_piece_comes_before_one_at_the_beginning_of_the_next():
    network = MLP([torch.eye(2), torch.eye(2), torch.ones(1, 2)], "hardtanh")
    line = paths.Polyline(torch.tensor([[3.0, -3.0], [1.0, -1.0], [0.0, 1.0]]), closed=False)
    found = transitions(network, line, positions=True)
    # Above, unit 0 stays at most 1, and unit 1 leaves -1.
    assert found.per_layer.tolist() == [2, 1]
    assert found.positions[0].tolist() == [1.0, 1.0]
    # Whole numbers everywhere: crossings lie on vertices, and on one another.
    for seed in range(190, 230):
        stream = torch.Generator().manual_seed(seed)
        weights = [torch.randint(-2, 3, shape, generator=stream).float() for shape in ((3, 3), (3, 3), (3, 3), (2, 3))]
        path = paths.Polyline(torch.randint(-3, 4, (5, 3), generator=stream).float())
        for activation in PIECEWISE:
            single, double = (MLP([weight.to(kind) for weight in weights], activation) for kind in (torch.float32, torch.float64))
            assert torch.equal(transitions(single, path).per_layer, transitions(double, path).per_layer)


@pytest.mark.parametrize(("heights", "expected"), [((-1.0, 0.0, 1.0), 1), ((1.0, 0.0, -1.0), 1), ((-1.0, 0.0, -1.0), 0)])
def test_a_vertex_on_a_boundary_is_crossed_once_or_not_at_all(heights, expected):
    network = MLP([torch.ones(1, 1), torch.ones(1, 1)], "relu")
    line = paths.Polyline(torch.tensor(heights).unsqueeze(1), closed=False)
    for method in ("exact", "sampled"):
        assert int(transitions(network, line, method=method, samples=3).total) == expected


def test_a_vertex_that_touches_a_boundary_from_above_is_below_it():
    """The code of a point on a boundary is that of the piece below: there and back makes two."""
    network = MLP([torch.ones(1, 1), torch.ones(1, 1)], "relu")
    line = paths.Polyline(torch.tensor([[1.0], [0.0], [1.0]]), closed=False)
    for method in ("exact", "sampled"):
        assert int(transitions(network, line, method=method, samples=3).total) == 2


def test_two_crossings_on_one_arc_and_the_whole_ellipse_between():
    network = MLP([torch.tensor([[1.0, 0.0]]), torch.ones(1, 1)], "hardtanh")
    for radius, expected in ((0.9, 0), (1.0001, 4), (5.0, 4)):
        circle = paths.Ellipse(torch.zeros(2), torch.tensor([radius, 0.0]), torch.tensor([0.0, radius]))
        found = transitions(network, circle, positions=True)
        assert int(found.total) == expected
        if expected:
            angle = math.acos(1 / float(torch.tensor(radius)))
            wanted = torch.tensor([angle, math.pi - angle, math.pi + angle, 2 * math.pi - angle], dtype=torch.float64)
            torch.testing.assert_close(found.positions[0], wanted, rtol=0, atol=1e-9)


# --- stacks, many paths, chunks


def mixed_paths(inputs=6):
    return [loop(5, inputs, 1), ellipse(inputs, 2), loop(3, inputs, 3, closed=False), loop(9, inputs, 4), ellipse(inputs, 5)]


@pytest.mark.parametrize("activation", PIECEWISE)
@pytest.mark.parametrize("chunk", [1, 2**18])
def test_stacks_and_many_paths_are_one_at_a_time(activation, chunk, monkeypatch):
    networks = [make_network(activation=activation, width=20, depth=5, scale=scale, seed=7) for scale in (0.5, 1.0, 4.0)]
    expected = [[twin(network, path) for path in mixed_paths()] for network in networks]
    monkeypatch.setattr("sensitometer.measures.regions.walk.CHUNK", chunk)
    monkeypatch.setattr("sensitometer.measures.regions.walk.FIRST_CHUNK", max(chunk, 100))
    stack = make_stack(networks)
    assert transitions(stack, mixed_paths()).per_layer.tolist() == expected
    found = transitions(stack, mixed_paths(), positions=True)
    assert found.per_layer.tolist() == expected
    for network, rows in zip(networks, found.positions, strict=True):
        for path, layers in zip(mixed_paths(), rows, strict=True):
            for mine, theirs in zip(layers, crossings(network.weights, activation, path), strict=True):
                torch.testing.assert_close(mine, theirs, rtol=0, atol=1e-6)


def test_dimensions_of_one_are_left_out():
    stack, path = make_stack([make_network(seed=1), make_network(seed=2)]), loop()
    shapes = {
        (True, True): transitions(stack, [path, path, path]),
        (True, False): transitions(stack, path),
        (False, True): transitions(stack[0], [path, path, path]),
        (False, False): transitions(stack[0], path),
    }
    for (several, many), found in shapes.items():
        expected = [2] * several + [3] * many
        assert list(found.total.shape) == expected
        assert list(found.per_layer.shape) == [*expected, 2]
        assert found.total.dtype == torch.int64
        assert found.positions is None
        assert torch.equal(found.total, found.per_layer.sum(-1))
    assert int(shapes[True, True].total[0, 0]) == int(shapes[False, False].total)


def test_layers_may_differ_in_width_and_a_linear_model_has_none():
    weights = [torch.randn(shape, generator=torch.Generator().manual_seed(2)) for shape in ((19, 6), (14, 19), (23, 14), (3, 23))]
    network = MLP(weights, "relu")
    for path in mixed_paths():
        assert transitions(network, path).per_layer.tolist() == twin(network, path)
    linear = MLP(weights[:1], "relu")
    for method in ("exact", "sampled"):
        found = transitions(linear, mixed_paths(), method=method, samples=10)
        assert found.per_layer.shape == (5, 0)
        assert found.total.tolist() == [0] * 5


def test_a_layer_much_wider_than_a_chunk(monkeypatch):
    monkeypatch.setattr("sensitometer.measures.regions.walk.CHUNK", 100)
    network, path = make_network(width=500, depth=3), loop()
    assert transitions(network, path).per_layer.tolist() == twin(network, path)


# --- what is refused


def test_bad_arguments_are_refused(refused):
    network, path = make_network(), loop()
    for expected, call in (
        ("method must be one of exact, sampled; got 'guess'", lambda: transitions(network, path, method="guess")),
        ("samples must be a whole number of at least 2; got 1", lambda: transitions(network, path, method="sampled", samples=1)),
        ("samples must be", lambda: transitions(network, path, method="sampled", samples=True)),
        ("path must be a Polyline, an Ellipse, or a list of them; got Tensor", lambda: transitions(network, torch.ones(3, 6))),
        ("path must be", lambda: transitions(network, [])),
        (r"path must be one of points \[6\], the network's inputs; got \[5\]", lambda: transitions(network, loop(4, 5))),
        (
            "exact transitions need a piecewise-linear activation; tanh",
            lambda: transitions(make_network(activation="tanh"), path),
        ),
        ("model must be an MLP", lambda: transitions(3, path)),
        ("model must be an MLP", lambda: transitions(3, path, method="sampled")),
        ("the network's weights must be finite", lambda: transitions(MLP([torch.full((2, 6), math.inf)], "relu"), path)),
    ):
        with refused(expected):
            call()


def test_any_model_is_sampled():
    network = make_network(depth=4, activation="relu6", scale=3.0)
    layers = []
    for weight in network.weights:
        layer = torch.nn.Linear(weight.shape[1], weight.shape[0], bias=False)
        layer.weight.data.copy_(weight)
        layers += [layer, torch.nn.ReLU6()]
    model = torch.nn.Sequential(*layers[:-1])
    for path in mixed_paths():
        expected = transitions(network, path, method="sampled", samples=3000, positions=True)
        found = transitions(model, path, method="sampled", samples=3000, positions=True)
        assert (found.per_layer - expected.per_layer).abs().max() <= 2
    images = paths.translation(torch.randn(1, 4, 4, generator=torch.Generator().manual_seed(0)), flat=False)
    convolution = torch.nn.Sequential(torch.nn.Conv2d(1, 3, 3), torch.nn.ReLU(), torch.nn.Flatten(), torch.nn.Linear(12, 2))
    assert int(transitions(convolution, images, method="sampled", samples=500).total) > 0


def test_crossings_know_their_units():
    network, path = make_network(activation="relu6", scale=3.0, depth=3), loop()
    found = all_crossings(network, path)
    assert len(found.t) == int(transitions(network, path).total)
    for layer in range(2):
        z = piece_values(network.weights, "relu6", layer, path, found.t[found.stage == layer])
        mine = z.gather(1, found.unit[found.stage == layer].unsqueeze(1)).squeeze(1)
        wanted = torch.tensor([0.0, 6.0], dtype=torch.float64)[found.boundary[found.stage == layer]]
        torch.testing.assert_close(mine, wanted, rtol=0, atol=1e-6)
