"""What is decided in float64 after a walk in float32, step by step; `test_transitions.py` has whole walks."""

import numpy as np
import pytest
import torch

from sensitometer import paths
from sensitometer.activations import activation
from sensitometer.measures.regions.settling import DECIDED, Births, Cases, beside, evaluate, joined, runs_of
from sensitometer.measures.regions.transitions import exact_crossings
from sensitometer.networks import MLPStack, initial_weights, layer_shapes


def case(row, *, unit=0, layer=1, trace=0, sides=(0, 1), t=None, z=1.0):
    """A case at breakpoint `row`, a unit `z` above its boundary, between neighbours that are 1 from it on these `sides`."""
    t = row if t is None else t
    what = [row, layer, unit, 0, trace, 7, DECIDED, *sides]
    heights = [{0: -1.0, 1: 1.0, -1: np.nan}[side] for side in sides]
    return Cases(np.array([what]).T, np.array([[t, row - 1.0, row + 1.0]]).T, np.array([[z, *heights]]).T)


def runs(*cases):
    return runs_of(joined(cases))


def test_a_unit_that_crosses_once_crosses_once_wherever():
    for z in (-1.0, 0.0, 1.0):
        for sides in ((0, 1), (1, 0)):
            found = runs(case(5, sides=sides, z=z))
            assert found.more.tolist() == [0]
            assert not found.lost.any()
            assert not len(found.run)


@pytest.mark.parametrize(
    ("sides", "z", "more", "at"),
    [
        ((1, 1), 1.0, 0, []),
        ((1, 1), -1.0, 2, [4.5, 5.5]),
        ((1, 1), -3.0, 2, [4.25, 5.75]),
        ((0, 0), -1.0, -2, []),
        ((0, 0), 1.0, 0, []),
        ((-1, 1), -1.0, 1, [5.5]),
        ((-1, -1), -1.0, 0, []),
    ],
)
def test_a_unit_that_turns_back(sides, z, more, at):
    found = runs(case(5, sides=sides, z=z))
    assert found.more.tolist() == [more]
    assert found.t.tolist() == at
    assert found.run.tolist() == [0] * len(at)


def test_cases_of_one_unit_at_breakpoints_in_a_row_are_one_run():
    row = [case(5, sides=(0, 1), z=1.0), case(6, sides=(1, 1), z=-1.0), case(7, sides=(1, 0), z=2.0)]
    others = [case(6, unit=3, z=1.0), case(9, z=1.0), case(10, trace=1, z=1.0)]
    found = runs(*reversed(row), *others)
    assert found.what[[0, 2, 4]].T.tolist() == [[5, 0, 0], [9, 0, 0], [10, 0, 1], [6, 3, 0]]
    # From 0 to 1, 0, 1 and 0; float32 has seen the first and the last.
    assert found.more.tolist() == [2, 0, 0, 0]
    assert found.t.tolist() == pytest.approx([4.5, 5.5, 6 + 1 / 3, 7 + 2 / 3])
    assert found.run.tolist() == [0] * 4


def test_breakpoints_that_were_found_in_the_wrong_order_are_put_into_theirs():
    # Above and below where they were found: there and back. In truth it goes up once.
    wrong = runs(case(5, sides=(0, 1), z=1.0), case(6, sides=(1, 1), z=-1.0))
    right = runs(case(5, sides=(0, 1), z=1.0, t=6.0), case(6, sides=(1, 1), z=-1.0, t=5.0))
    assert wrong.more.tolist() == [2]
    assert right.more.tolist() == [0]
    assert not right.lost.any()


def test_what_belongs_beyond_its_neighbours_is_given_up():
    # Where the neighbour says 0, or beyond it: what lies there was decided for another place.
    assert runs(case(5, sides=(0, 1), z=1.0, t=3.9)).lost.tolist() == [True]
    assert runs(case(5, sides=(0, 1), z=-1.0, t=6.1)).lost.tolist() == [True]
    # On the side of the neighbour all is as before.
    assert runs(case(5, sides=(0, 1), z=-1.0, t=3.9)).lost.tolist() == [False]
    # The last of a chunk and the one before have changed places.
    assert runs(case(5, sides=(0, 1), t=6.0), case(6, sides=(1, -1), t=5.0)).lost.tolist() == [True]


def test_missed_breakpoints_are_beside_cases_of_layers_above_between_whose_neighbours_they_are():
    generator = np.random.default_rng(0)
    drawn = zip(*(generator.integers(0, high, 200) for high in (40, 3, 4, 3)), strict=True)
    cases = joined([case(row, unit=unit, layer=layer, trace=trace) for row, unit, layer, trace in drawn])
    missed, t = generator.integers(0, 4, (2, 60)), generator.uniform(0, 40, 60)
    seen, expected = set(), set()
    for column in range(200):
        row, layer, unit, _, trace, *_ = cases.what[:, column]
        if column and (row, unit) == (cases.what[0, column - 1], cases.what[2, column - 1]):
            continue
        for number in range(60):
            if missed[0, number] == trace and missed[1, number] < layer and abs(t[number] - row) < 1:
                expected.add((number, column))
    for pair in zip(*beside(cases, missed, t), strict=True):
        assert pair not in seen
        seen.add(pair)
    assert seen == expected
    assert len(seen) > 20


@pytest.mark.parametrize("name", ["relu", "relu6", "hardtanh", "hardsigmoid"])
def test_breakpoints_are_found_again_and_units_evaluated_there(name):
    weights = initial_weights(layer_shapes(6, 20, 7, 3), name, 1.0 if name == "relu" else 3.0, seed=1)
    weights = [weight.double() for weight in weights]
    points = torch.randn(2, 6, generator=torch.Generator().manual_seed(2), dtype=torch.float64) * 3
    chosen = activation(name)
    walk = exact_crossings(
        MLPStack([weight.unsqueeze(0) for weight in weights], name), [paths.Polyline(points, closed=False)], keep=True
    )
    below = walk.layer < 5
    born, by, at = walk.layer[below], walk.unit[below], walk.t[below]
    limits = torch.tensor(chosen.boundaries, dtype=torch.float64)[walk.boundary[below]]
    layer, unit = (born + 1).clamp(min=3), (by + 1) % 20
    highest_first = layer.argsort(descending=True, stable=True)
    born, by, at, limits, layer, unit = (one[highest_first] for one in (born, by, at, limits, layer, unit))
    ends = (points @ weights[0].T).unsqueeze(1).expand(-1, len(at), -1)
    # At first about where float32 has them.
    wrong = at + 1e-7 * torch.linspace(-1, 1, len(at), dtype=torch.float64)
    births = Births(born.numpy(), by.numpy(), limits.numpy())
    z, share = evaluate(weights[1:-1], chosen.clamp, ends.numpy(), wrong.numpy(), births, layer.numpy(), unit.numpy())
    assert len(at) > 20
    torch.testing.assert_close(torch.from_numpy(share), at, rtol=0, atol=1e-11)
    h = torch.lerp(points[:1], points[1:], at.unsqueeze(1))
    for place, weight in enumerate(weights[:-1]):
        h = h @ weight.T
        here = layer == place
        torch.testing.assert_close(torch.from_numpy(z)[here], h[here, unit[here]], rtol=0, atol=1e-9)
        chosen.apply_(h)


def test_what_is_no_crossing_is_a_point_like_any_other():
    # The unit is far from its boundary all the way: Newton's step is refused, and the share is kept.
    ends, weights = np.array([[[1.0, 2.0]], [[3.0, 2.0]]]), [torch.eye(2, dtype=torch.float64)]
    births = Births(np.array([0]), np.array([1]), np.array([0.0]))
    z, share = evaluate(weights, (0.0, 0.0, np.inf), ends, np.array([0.25]), births, np.array([1]), np.array([0]))
    assert share.tolist() == [0.25]
    assert z.tolist() == [1.5]
