"""The compiled steps of a walk, one by one, against those in torch, which any device runs; and whole walks with either."""

import itertools

import numba
import pytest
import torch
from reference import crossings

from sensitometer import paths
from sensitometer.activations import activation
from sensitometer.measures import compiling
from sensitometer.measures.regions import compiled_steps, segments, steps
from sensitometer.measures.regions.crossings import Found, Rows
from sensitometer.measures.regions.transitions import transitions
from sensitometer.networks import MLP, MLPStack, initial_weights, layer_shapes

PIECEWISE = ("relu", "relu6", "hardtanh", "hardsigmoid")


def chunk(name, dtype, units, seed=0):
    """Pre-activations of two networks along three paths, among them zeros and rows of them, with their rows and limits."""
    generator = torch.Generator().manual_seed(seed)
    lengths = (1, 9, 30, 2, 7, 25)
    R = sum(lengths)
    z = torch.randn(R, units, generator=generator, dtype=dtype) * 2
    z[torch.rand(z.shape, generator=generator) < 0.05] = 0
    z[[3, 20]] = 0
    trace = torch.arange(6).repeat_interleave(torch.tensor(lengths))
    t = torch.cat([torch.arange(length).double() for length in lengths])
    boundaries = torch.tensor(activation(name).boundaries, dtype=dtype)
    tolerance = torch.tensor([[0.1], [0.3]], dtype=dtype)
    edges = [0, sum(lengths[:3]), R]
    return z, Rows(trace, t, torch.full_like(trace, -1)), boundaries, (edges, boundaries - tolerance, boundaries + tolerance)


@pytest.mark.parametrize("units", [1, 7, 8, 37, 400])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("name", PIECEWISE)
def test_each_step_is_as_in_torch(name, dtype, units):
    z, rows, limits, around = chunk(name, dtype, units)
    flags, close = compiled_steps.sides(z, *around)
    plain, few = steps.sides(z, *around)
    assert torch.equal(flags[:, :, :units], plain)
    assert not flags[:, :, units:].any()
    assert torch.equal(close, few)
    assert close.any() or units == 1

    assert torch.equal(compiled_steps.changes(flags, rows.trace), steps.changes(plain, rows.trace))

    counts, expected = torch.zeros(2, 6, dtype=torch.int64)
    doubts = compiled_steps.doubts(2, z, flags, rows, close, limits, counts)
    for one, other in zip(doubts, steps.doubts(2, z, plain, rows, few, limits, expected), strict=True):
        assert torch.equal(one, other)
    assert torch.equal(counts, expected)
    assert int(counts.sum()) == int(close.sum())

    found, twin = (one.crossings(z, of, rows, limits) for one, of in ((compiled_steps, flags), (steps, plain)))
    assert len(found.piece) == int(steps.changes(plain, rows.trace).sum())
    for field in ("piece", "unit", "boundary", "place", "t", "change"):
        torch.testing.assert_close(getattr(found, field), getattr(twin, field), rtol=1e-6, atol=0)

    names = torch.arange(len(found.piece))
    merged, theirs = (one.merge(rows, twin, names) for one in (compiled_steps, steps))
    for one, other in ((merged, theirs), (merged.rows, theirs.rows)):
        for field in vars(other):
            if isinstance(getattr(other, field), torch.Tensor):
                assert torch.equal(getattr(one, field), getattr(other, field)), field
    for here in (slice(0, len(merged.before)), slice(5, 40)):
        places = torch.arange(here.start, here.stop)
        h = compiled_steps.activations(z, theirs, places, activation(name))
        h_twin = steps.activations(z, theirs, here, activation(name))
        torch.testing.assert_close(h, h_twin, rtol=0, atol=4 * torch.finfo(dtype).eps * float(z.abs().max()))


@pytest.mark.parametrize("units", [1, 7, 37, 400])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("name", PIECEWISE)
@pytest.mark.parametrize("between", [0, 1, 4, 15])
def test_what_is_between_products_is_as_products_are(monkeypatch, name, dtype, units, between):
    monkeypatch.setattr(compiled_steps, "BETWEEN", between)
    monkeypatch.setattr(compiled_steps, "BLOCK", 10 if units == 37 else 512)
    z, rows, limits, (edges, _, _) = chunk(name, dtype, units)
    z[z == 0] = 0.3
    z[[6, 17, 50], 0] = limits[0]
    around = edges, (limits - 1e-6).expand(2, -1).contiguous(), (limits + 1e-6).expand(2, -1).contiguous()
    flags, _ = compiled_steps.sides(z, *around)
    found = compiled_steps.crossings(z, flags, rows, limits)
    merged = compiled_steps.merge(rows, found, torch.arange(len(found.piece)))
    weights = torch.randn(2, units, 23, generator=torch.Generator().manual_seed(1), dtype=dtype) / units**0.5
    fastest = torch.tensor([3.0, 5.0])
    eligible = found.change <= fastest[(rows.trace[found.piece] >= 3).long()]
    assert eligible.any()
    assert found.change.isinf().any()
    assert units == 1 or (found.change.isfinite() & ~eligible).any()
    total, taken, real = len(merged.before), [], compiled_steps._insert

    def spy(places, *arguments):
        taken[-1].update(places.tolist())
        real(places, *arguments)

    monkeypatch.setattr(compiled_steps, "_insert", spy)
    for here in (slice(0, total), slice(5, min(40, total)), slice(5, 6), slice(4, 6)):
        networks = (merged.rows.trace[here] >= 3).long()
        mine = slice(int(networks[0]), int(networks[-1]) + 1)
        taken.append(set())
        parts = [0, *(networks.diff().nonzero().view(-1) + 1).tolist(), here.stop - here.start]
        out, expected = (
            one.above(z, merged, here, activation(name), weights[mine], parts, fastest[mine]) for one in (compiled_steps, steps)
        )
        torch.testing.assert_close(out, expected, rtol=0, atol=20 * torch.finfo(dtype).eps * float(z.abs().max()))
    # All but the eligible, and of several of these in a row one after so many.
    between_products = (merged.crossing >= 0) & eligible[merged.crossing.clamp(min=0)]
    runs = [len(list(run)) for is_between, run in itertools.groupby(between_products.tolist()) if is_between]
    assert len(taken[0]) == total - sum(run - run // (between + 1) for run in runs)


def test_all_rows_are_products_where_nothing_may_be_interpolated(monkeypatch):
    z, rows, limits, (edges, low, high) = chunk("relu", torch.float64, 37)
    found = compiled_steps.crossings(z, compiled_steps.sides(z, edges, low, high)[0], rows, limits)
    merged = compiled_steps.merge(rows, found, torch.arange(len(found.piece)))
    monkeypatch.setattr(compiled_steps, "_between", None)
    weights = torch.randn(2, 37, 23, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    here, parts = slice(0, len(merged.before)), [0, int((merged.rows.trace < 3).sum()), len(merged.before)]
    out, expected = (one.above(z, merged, here, activation("relu"), weights, parts, None) for one in (compiled_steps, steps))
    torch.testing.assert_close(out, expected)


def test_many_crossings_of_a_piece_are_in_order():
    z = torch.stack([-torch.rand(1000, generator=torch.Generator().manual_seed(0)) - 0.1, torch.ones(1000)])
    rows = Rows(torch.zeros(2, dtype=torch.int64), torch.tensor([0.0, 1.0]).double(), torch.full((2,), -1))
    limit = torch.zeros(1, 1)
    flags, _ = compiled_steps.sides(z, [0, 2], limit, limit)
    found = compiled_steps.crossings(z, flags, rows, limit[0])
    assert found.place.tolist() == sorted(found.place.tolist())
    assert sorted(found.unit.tolist()) == list(range(1000))
    assert torch.equal(found.place, (-z[0] / (1 - z[0]))[found.unit])
    assert torch.equal(found.change, (1 - z[0])[found.unit])


@pytest.mark.parametrize("one", [compiled_steps, steps], ids=["compiled", "torch"])
def test_units_that_cross_together_are_on_their_boundaries_together(one):
    z = torch.tensor([[-1.0, -3.0, 5.0], [1.0, 3.0, 5.0]])
    rows = Rows(torch.zeros(2, dtype=torch.int64), torch.tensor([0.0, 1.0]).double(), torch.full((2,), -1))
    # The second is where interpolation has rounded it to.
    place = torch.tensor([0.5, 0.5])
    found = Found(
        torch.tensor([0, 0]),
        torch.tensor([0, 1]),
        torch.tensor([0, 0]),
        place + 1e-3,
        torch.tensor([0.5, 0.5]).double(),
        torch.tensor([2.0, 6.0]),
    )
    here = torch.arange(4) if one is compiled_steps else slice(0, 4)
    h = one.activations(z, one.merge(rows, found, torch.tensor([0, 1])), here, activation("relu"))
    assert h.tolist() == [[0, 0, 5], [0, 0, 5], [0, 0, 5], [1, 3, 5]]


@pytest.mark.parametrize("name", PIECEWISE)
@pytest.mark.parametrize("chunk", [2**20, 100])
def test_walks_in_torch_find_the_same(monkeypatch, name, chunk):
    drawn = [initial_weights(layer_shapes(6, 12, 4, 3), name, 1.5, seed) for seed in (1, 2, 3)]
    stack = MLPStack([torch.stack(layer) for layer in zip(*drawn, strict=True)], name)
    generator = torch.Generator().manual_seed(1)
    several = [paths.Polyline(3 * torch.randn(vertices, 6, generator=generator), closed=vertices != 4) for vertices in (5, 4, 7)]
    several.append(paths.Polyline(torch.cat([several[0].vertices, several[0].vertices.flip(0)]), closed=False))
    expected = transitions(stack, several)
    where = transitions(stack, several, positions=True)
    monkeypatch.setattr(segments, "compiled_steps", steps)
    monkeypatch.setattr("sensitometer.measures.regions.crossings.CHUNK", chunk)
    assert torch.equal(transitions(stack, several).per_layer, expected.per_layer)
    again = transitions(stack, several, positions=True)
    assert torch.equal(again.per_layer, expected.per_layer)
    for network in range(3):
        for path in range(4):
            for mine, theirs in zip(again.positions[network][path], where.positions[network][path], strict=True):
                torch.testing.assert_close(mine, theirs, rtol=0, atol=1e-9)
    twin = [len(layer) for layer in crossings(MLP(drawn[0], name).weights, name, several[0])]
    assert expected.per_layer[0, 0].tolist() == twin


def test_what_cannot_be_kept_is_compiled_all_the_same(monkeypatch):
    real = numba.njit

    def without_a_folder(*arguments, cache=False, **options):
        if cache:
            return lambda loop: raise_(RuntimeError(f"cannot cache function {loop.__name__!r}: no locator available"))
        return real(*arguments, **options)

    def raise_(error):
        raise error

    monkeypatch.setattr(numba, "njit", without_a_folder)

    @compiling.compiled
    def reciprocal(x):
        return 1.0 / x

    assert reciprocal(4.0) == 0.25
    assert reciprocal(0.0) == float("inf")


@pytest.mark.parametrize("name", ["hardtanh", "hardsigmoid"])
@pytest.mark.parametrize("width", [11, 203])
def test_what_flags_are_padded_with_is_no_unit(monkeypatch, name, width):
    """Many units are on their negative boundary at the second vertex, and all are 0 at the first, which is so told by itself."""
    generator = torch.Generator().manual_seed(0)
    limit = min(activation(name).boundaries)
    first = torch.cat([torch.full((width, 1), limit), 2 * torch.randn(width, 19, generator=generator)], 1)
    second = 1.5 * torch.randn(width, width, generator=generator) / width**0.5
    network = MLP([first, second, torch.ones(3, width)], name)
    vertices = 2 * torch.randn(4, 20, generator=generator)
    vertices[0], vertices[1] = 0, torch.eye(20)[0]
    found, real = [], compiled_steps.crossings

    def spy(*arguments):
        found.append(real(*arguments))
        return found[-1]

    monkeypatch.setattr(compiled_steps, "crossings", spy)
    path = paths.Polyline(vertices, closed=False)
    counts = transitions(network, path).per_layer.tolist()
    assert found
    assert all(int(one.unit.max()) < width for one in found)
    monkeypatch.setattr(segments, "compiled_steps", steps)
    assert counts == transitions(network, path).per_layer.tolist()
