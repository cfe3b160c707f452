"""L-BFGS: textbook cases, one network at a time in lists of numbers, and several at once against each alone."""

import itertools
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from reference import dot, lbfgs, searched

from sensitometer.optimizers import LBFGS
from sensitometer.optimizers.line_search import CURVATURE, strong_wolfe

# With these an iteration ends where the loss is lowest along its direction, and nothing ends the run but a gradient of almost 0.
EXACT = {"curvature": 1e-9, "gradient_tolerance": 1e-8, "change_tolerance": 0.0}


def tell(optimizer, functions):
    """Evaluate `functions[i](point, iteration)`, lists of numbers, at every trial, finished or not."""
    answers = [f(trial.tolist(), k) for f, trial, k in zip(functions, optimizer.trials, optimizer.done, strict=True)]
    values, gradients = zip(*answers, strict=True)
    dtype = optimizer.points.dtype
    optimizer.tell(torch.tensor(values, dtype=torch.float64), torch.tensor(gradients, dtype=dtype))


def minimise(functions, starts, iterations=300, dtype=torch.float64, **options):
    """Minimise all of them at once; the optimizer in the end, and where each network's iterations ended."""
    optimizer = LBFGS(torch.tensor(starts, dtype=dtype), iterations, **options)
    paths = [[] for _ in starts]
    while not all(optimizer.finished):
        tell(optimizer, functions)
        for i, path in enumerate(paths):
            if optimizer.done[i] > len(path):
                path.append(optimizer.points[i].tolist())
            assert optimizer.done[i] == len(path)
    return optimizer, paths


def search(along, value, slope, first, curvature=CURVATURE):
    """The package's line search, which has tests of its own."""
    return searched(strong_wolfe(value, slope, first, curvature), along)


def twin(function, start, iterations=300, **options):
    return lbfgs(function, start, iterations, search, **options)


# --- functions


def quadratic(eigenvalues, seed):
    """1/2 (x - c)^T A (x - c) with these eigenvalues, in a random basis."""
    stream = torch.Generator().manual_seed(seed)
    P = len(eigenvalues)
    basis = torch.linalg.qr(torch.randn(P, P, generator=stream, dtype=torch.float64))[0]
    A = (basis * torch.tensor(eigenvalues, dtype=torch.float64) @ basis.T).tolist()
    centre = torch.randn(P, generator=stream, dtype=torch.float64).tolist()

    def function(x, iteration=0):
        away = [one - other for one, other in zip(x, centre, strict=True)]
        g = [dot(row, away) for row in A]
        return dot(away, g) / 2, g

    function.minimum = centre
    return function


def rosenbrock(x, iteration=0):
    """The chained one: sum of 100 (x_{i+1} - x_i^2)^2 + (1 - x_i)^2."""
    value, g = 0.0, [0.0] * len(x)
    for i in range(len(x) - 1):
        bend, rest = x[i + 1] - x[i] ** 2, 1 - x[i]
        value += 100 * bend**2 + rest**2
        g[i] += -400 * x[i] * bend - 2 * rest
        g[i + 1] += 200 * bend
    return value, g


def logistic(seed, points=25, P=6, penalty=0.0):
    """The mean of log(1 + exp(-label w x)) over random points, whose classes overlap; plus penalty/2 |w|^2."""
    stream = torch.Generator().manual_seed(seed)
    x = torch.randn(points, P, generator=stream, dtype=torch.float64)
    labels = (2 * torch.randint(2, (points,), generator=stream) - 1).tolist()
    x = (x * torch.tensor([10.0**-i for i in range(P)], dtype=torch.float64).sqrt()).tolist()

    def function(w, iteration=0):
        value, g = penalty / 2 * dot(w, w), [penalty * one for one in w]
        for point, label in zip(x, labels, strict=True):
            margin = label * dot(w, point)
            value += math.log1p(math.exp(-margin)) / points
            share = -label / (1 + math.exp(margin)) / points
            g = [one + share * other for one, other in zip(g, point, strict=True)]
        return value, g

    return function


def huber(x, iteration=0):
    """Straight more than 1 away from 0 in each coordinate, with a slope of its own."""
    slopes = [1.0 + i for i in range(len(x))]
    value = sum(s * (abs(one) - 0.5 if abs(one) > 1 else one * one / 2) for s, one in zip(slopes, x, strict=True))
    return value, [s * max(-1.0, min(1.0, one)) for s, one in zip(slopes, x, strict=True)]


START = [-1.2, 1.0, -0.7, 0.5, 1.4, -1.0]
FUNCTIONS = {
    "quadratic": quadratic([1.0, 2.0, 5.0, 10.0, 30.0, 100.0], seed=1),
    "rosenbrock": rosenbrock,
    "logistic": logistic(2, penalty=0.01),
    "huber": huber,
}


# --- the textbook


def test_quadratic_of_k_eigenvalues_takes_k_iterations_each_network_its_own_number():
    eigenvalues = {
        1: [3.0] * 8,
        2: [1.0, 4.0] * 4,
        3: [1.0, 1.0, 2.0, 2.0, 2.0, 7.0, 7.0, 7.0],
        5: [1.0, 3.0, 5.0, 7.0, 9.0, 9.0, 9.0, 9.0],
        8: [1.0, 2.0, 4.0, 6.0, 8.0, 10.0, 12.0, 14.0],
    }
    functions = [quadratic(spectrum, seed=k) for k, spectrum in eigenvalues.items()]
    optimizer, paths = minimise(functions, [[0.0] * 8] * len(functions), **EXACT)
    assert optimizer.done == list(eigenvalues)
    for function, path in zip(functions, paths, strict=True):
        assert path[-1] == pytest.approx(function.minimum, abs=1e-7)
        assert all(math.dist(point, function.minimum) > 1e-3 for point in path[:-1])


@pytest.mark.parametrize("history", [1, 2, 8])
def test_quadratic_of_k_eigenvalues_takes_k_iterations_with_any_history(history):
    # With exact steps all directions are those of conjugate gradients, whatever was kept.
    optimizer, _ = minimise([quadratic([1.0, 2.0, 4.0, 6.0, 8.0], seed=3)], [[0.0] * 5], history=history, **EXACT)
    assert optimizer.done == [5]


def test_rosenbrock_is_solved():
    starts = [[-1.2, 1.0], [0.0, 0.0], [3.0, -2.0], [-1.0, 1.0]]
    optimizer, paths = minimise([rosenbrock] * 4, starts)
    for path in paths:
        assert path[-1] == pytest.approx([1.0, 1.0], abs=1e-4)
        values = [rosenbrock(point)[0] for point in path]
        assert values == sorted(values, reverse=True)
    assert max(optimizer.done) < 60
    assert len(set(optimizer.done)) > 1


# --- the twin


def assert_same_path(found, expected, tolerance=1e-9):
    assert len(found) == len(expected)
    assert found == [pytest.approx(point, rel=tolerance, abs=tolerance) for point in expected]


# Nothing ends these but the number of iterations.
ENDLESS = {"gradient_tolerance": 0.0, "change_tolerance": -1.0}


@pytest.mark.parametrize("history", [1, 3, 10])
@pytest.mark.parametrize("name", ["quadratic", "rosenbrock", "huber"])
def test_iterations_are_the_twins(name, history):
    _, (path,) = minimise([FUNCTIONS[name]], [START], 35, history=history, **ENDLESS)
    assert len(path) == 35, "more iterations than any history holds"
    assert_same_path(path, twin(FUNCTIONS[name], START, 35, history=history, **ENDLESS))


@pytest.mark.parametrize("piece", [1, 4, 6, 7])
def test_products_may_be_summed_in_pieces(monkeypatch, piece):
    monkeypatch.setattr("sensitometer.optimizers.lbfgs.PIECE", piece)
    _, paths = minimise([rosenbrock, FUNCTIONS["huber"]], [START, START], 15, **ENDLESS)
    for path, function in zip(paths, (rosenbrock, huber), strict=True):
        assert_same_path(path, twin(function, START, 15, **ENDLESS))


def test_history_matters_to_what_the_twin_is_compared_with():
    ends = [twin(rosenbrock, START, 20, history=history, **ENDLESS)[-1] for history in (1, 3, 10, 11, 20)]
    assert all(math.dist(one, other) > 1e-3 for i, one in enumerate(ends) for other in ends[:i])


@pytest.mark.parametrize("curvature", [0.5, 0.1])
def test_curvature_constant_reaches_the_line_search(curvature):
    def closer(*arguments):
        return search(*arguments, curvature=curvature)

    _, (path,) = minimise([rosenbrock], [START], 30, curvature=curvature, **ENDLESS)
    assert_same_path(path, lbfgs(rosenbrock, START, 30, closer, **ENDLESS))


@pytest.mark.parametrize("options", [{}, {"gradient_tolerance": 0.3}, {"change_tolerance": 1e-2}, {"change_tolerance": 0.3}])
@pytest.mark.parametrize("name", FUNCTIONS)
def test_it_ends_where_the_twin_ends(name, options):
    optimizer, (path,) = minimise([FUNCTIONS[name]], [START], 80, **options)
    assert_same_path(path, twin(FUNCTIONS[name], START, 80, **options), tolerance=1e-6)
    assert optimizer.finished == [True]
    assert optimizer.done == [len(path)]
    assert len(path) < 80


def scaled(function, factor):
    def scaled(x, iteration=0):
        value, g = function(x)
        return factor * value, [factor * one for one in g]

    return scaled


@pytest.mark.parametrize("factor", [1e-4, 1e4])
def test_decrease_counts_relative_to_losses_above_1_only(factor):
    function = scaled(FUNCTIONS["quadratic"], factor)
    options = {"gradient_tolerance": 0.0, "change_tolerance": 1e-6}
    _, (path,) = minimise([function], [START], 80, **options)
    assert_same_path(path, twin(function, START, 80, **options), tolerance=1e-6)
    values = [function(START)[0], *(function(point)[0] for point in path)]
    decreases = [(before - after) / max(abs(before), abs(after), 1.0) for before, after in itertools.pairwise(values)]
    assert decreases[-1] <= 1e-6 < min(decreases[:-1])


@settings(max_examples=30)
@given(
    powers=st.lists(st.floats(-1, 2), min_size=2, max_size=6),
    seed=st.integers(0, 99),
    history=st.integers(1, 4),
)
def test_random_quadratics_are_the_twins(powers, seed, history):
    function = quadratic([10.0**power for power in powers], seed)
    start = [0.0] * len(powers)
    _, (path,) = minimise([function], [start], 8, history=history)
    assert_same_path(path, twin(function, start, 8, history=history), tolerance=1e-7)


# --- pairs without curvature, failures, values that are none


def test_pairs_without_curvature_are_left_out():
    def straight(x, iteration=0):
        return -dot([1.0, 2.0], x), [-1.0, -2.0]

    optimizer, (path,) = minimise([straight], [[0.0, 0.0]], 3, **ENDLESS)
    assert optimizer.kept == [0]
    assert optimizer.done == [3]
    # The direction is that of the gradient, and the first step of a search moves by 1.
    assert all(x[1] == pytest.approx(2 * x[0]) for x in path)


def test_one_pair_without_curvature_is_left_out_of_a_history():
    smooth = FUNCTIONS["quadratic"]

    def function(x, iteration):
        if iteration != 4:
            return smooth(x)
        # Straight up to a wall: a search that cannot have the second condition ends before it.
        height = 3 - sum(x)
        return height if height > 0 else math.inf, [-1.0] * len(x)

    optimizer, (path,) = minimise([function], [START], 25, renewed=True)
    assert sum(path[4]) == pytest.approx(3, abs=1e-3)
    assert optimizer.done == [25]
    assert optimizer.kept == [24]
    # The others go on being of use.
    assert path[-1] == pytest.approx(smooth.minimum, abs=1e-4)


def test_no_step_down_the_gradient_ends_it_where_it_began():
    def against(x, iteration=0):
        return dot(x, x), [-2 * one for one in x]

    optimizer, (path,) = minimise([against], [[3.0, 4.0]])
    assert path == []
    assert (optimizer.done, optimizer.finished) == ([0], [True])
    assert optimizer.points.tolist() == [[3.0, 4.0]]


@pytest.mark.parametrize("answer", [math.inf, math.nan])
def test_search_that_fails_is_tried_again_down_the_gradient(answer):
    function, start = FUNCTIONS["quadratic"], START
    optimizer = LBFGS(torch.tensor([start], dtype=torch.float64), 50)
    while optimizer.done[0] < 4:
        tell(optimizer, [function])
    point, kept = optimizer.points.clone(), optimizer.kept[0]
    assert kept == 4
    while optimizer.kept[0] == kept:
        tell(optimizer, [lambda x, iteration: (answer, [0.0] * 6)])
    assert (optimizer.kept, optimizer.done, optimizer.finished) == ([0], [4], [False])
    assert torch.equal(optimizer.points, point)
    g = torch.tensor([function(point[0].tolist())[1]], dtype=torch.float64)
    torch.testing.assert_close(optimizer.trials - point, -g * min(1.0, 1 / float(g.norm())), rtol=1e-9, atol=1e-12)
    while not all(optimizer.finished):
        tell(optimizer, [function])
    assert optimizer.points[0].tolist() == pytest.approx(function.minimum, abs=1e-4)


@pytest.mark.parametrize("answer", [math.inf, math.nan, -math.inf])
def test_first_loss_that_is_not_a_number_ends_it(answer):
    optimizer, (path, other) = minimise([lambda x, k: (answer, [1.0, 1.0]), rosenbrock], [[1.0, 2.0], [-1.2, 1.0]])
    assert path == []
    assert optimizer.done[0] == 0
    assert optimizer.points[0].tolist() == [1.0, 2.0]
    assert other == minimise([rosenbrock], [[-1.2, 1.0]])[1][0]


@pytest.mark.parametrize("where", ["value", "gradient", "both"])
@pytest.mark.parametrize("from_iteration", [0, 3])
def test_nan_in_one_network_does_not_spread(where, from_iteration):
    def broken(x, iteration):
        value, g = rosenbrock(x)
        if iteration < from_iteration:
            return value, g
        return value if where == "gradient" else math.nan, g if where == "value" else [math.nan] * len(g)

    functions = [FUNCTIONS["quadratic"], broken, FUNCTIONS["huber"]]
    optimizer, paths = minimise(functions, [START] * 3)
    assert paths[0] == minimise(functions[:1], [START])[1][0]
    assert paths[2] == minimise(functions[2:], [START])[1][0]
    # A decrease of the loss is taken, but nothing can be done with a gradient of nan.
    assert len(paths[1]) == from_iteration + (where == "gradient" and from_iteration > 0)
    assert optimizer.points[1].isfinite().all()


def valley(size):
    """Minimal at (5, -5), and all but straight until there."""

    def function(x, iteration=0):
        away = [x[0] - 5, x[1] + 5]
        return size * sum(math.hypot(one, 1) for one in away), [size * one / math.hypot(one, 1) for one in away]

    return function


@pytest.mark.parametrize("size", [1e-12, 1.0, 1e12, 1e25, 1e30])
def test_gradients_may_be_of_any_size(size):
    # Squares of 1e25 are beyond float32.
    _, (path,) = minimise([valley(size)], [[0.0, 0.0]], 40, torch.float32, **ENDLESS)
    assert path[-1] == pytest.approx([5.0, -5.0], abs=1e-2)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_gradients_too_small_to_move_anything_end_or_do_no_harm(dtype):
    optimizer, (_, other) = minimise([valley(1e-25), FUNCTIONS["huber"]], [[0.0, 0.0]] * 2, 9, dtype, renewed=True)
    assert optimizer.points[0].tolist() == pytest.approx([0.0, 0.0], abs=1e-9)
    assert other == minimise([FUNCTIONS["huber"]], [[0.0, 0.0]], 9, dtype, renewed=True)[1][0]


# --- ends


def test_no_iterations_leave_the_points():
    optimizer = LBFGS(torch.ones(2, 3), 0)
    assert optimizer.finished == [True, True]
    assert torch.equal(optimizer.points, torch.ones(2, 3))


@pytest.mark.parametrize("iterations", [1, 2, 7])
def test_iterations_are_at_most_so_many(iterations):
    optimizer, paths = minimise([rosenbrock, FUNCTIONS["quadratic"]], [START, START], iterations)
    assert optimizer.done == [iterations, iterations]
    assert paths == [path[:iterations] for path in minimise([rosenbrock, FUNCTIONS["quadratic"]], [START, START])[1]]


def test_at_a_minimum_nothing_is_done():
    optimizer, (path,) = minimise([rosenbrock], [[1.0] * 6])
    assert (path, optimizer.done, optimizer.finished) == ([], [0], [True])


def test_initial_points_are_copied():
    points = torch.tensor([START], dtype=torch.float64)
    optimizer = LBFGS(points, 3)
    while not all(optimizer.finished):
        tell(optimizer, [rosenbrock])
    assert points.tolist() == [START]


# --- several at once


def test_networks_go_their_own_ways():
    functions = list(FUNCTIONS.values())
    optimizer, paths = minimise(functions, [START] * 4)
    for i, function in enumerate(functions):
        single, (path,) = minimise([function], [START])
        assert_same_path(paths[i], path, tolerance=1e-12)
        assert (optimizer.done[i], optimizer.kept[i]) == (single.done[0], single.kept[0])
        assert optimizer.values[i] == pytest.approx(single.values[0], rel=1e-12)
        assert optimizer.values[i] == pytest.approx(function(path[-1])[0], rel=1e-9, abs=1e-15)
    assert len(set(optimizer.done)) == 4


def test_one_evaluation_a_round_is_all_that_any_network_takes():
    rounds = []

    def counting(function):
        def counted(x, iteration):
            calls[-1] += 1
            return function(x)

        return counted

    for function in FUNCTIONS.values():
        calls = [0]
        minimise([counting(function)], [START])
        rounds.append(calls[-1])
    calls = [0]
    minimise([counting(function) for function in FUNCTIONS.values()], [START] * 4)
    assert calls[-1] == 4 * max(rounds)


def test_finished_ones_are_left_as_they_are():
    functions = [quadratic([1.0] * 6, seed=1), rosenbrock]
    optimizer = LBFGS(torch.tensor([START, START], dtype=torch.float64), 300)
    while not optimizer.finished[0]:
        tell(optimizer, functions)
    assert not optimizer.finished[1]
    ended = optimizer.points[0].clone()
    done, kept, value = optimizer.done[0], optimizer.kept[0], optimizer.values[0]
    while not optimizer.finished[1]:
        assert torch.equal(optimizer.trials[0], ended)
        tell(optimizer, [lambda x, k: (-100.0, [-1.0] * 6), rosenbrock])
    assert torch.equal(optimizer.points[0], ended)
    assert (optimizer.done[0], optimizer.kept[0], optimizer.values[0]) == (done, kept, value)


@pytest.mark.parametrize("staying", [[0, 3], [2], [1, 2, 3], [3, 0]])
@pytest.mark.parametrize("rounds", [0, 1, 6, 15])
def test_those_selected_go_on_as_if_the_others_had_never_been(rounds, staying):
    functions = list(FUNCTIONS.values())
    _, paths = minimise(functions, [START] * 4, history=4)
    optimizer = LBFGS(torch.tensor([START] * 4, dtype=torch.float64), 300, history=4)
    for _ in range(rounds):
        tell(optimizer, functions)
    optimizer.select(staying)
    assert len(optimizer.points) == len(staying)
    while not all(optimizer.finished):
        tell(optimizer, [functions[i] for i in staying])
    for place, i in enumerate(staying):
        assert optimizer.done[place] == len(paths[i])
        assert optimizer.points[place].tolist() == pytest.approx(paths[i][-1], rel=1e-9)


# --- renewed objectives


def drifting(seed):
    """A quadratic that is another one in every iteration, and remembers the iterations that asked."""
    quadratics = [quadratic([1.0, 2.0, 5.0, 10.0, 30.0, 100.0], seed=seed + k) for k in range(40)]

    def function(x, iteration):
        asked.append(iteration)
        return quadratics[iteration](x)

    asked = function.asked = []
    return function


@pytest.mark.parametrize("history", [2, 10])
def test_renewed_iterations_are_the_twins(history):
    functions = [drifting(0), drifting(100), lambda x, k: rosenbrock(x)]
    _, paths = minimise(functions, [START] * 3, 30, history=history, renewed=True)
    for path, function in zip(paths, functions, strict=True):
        assert_same_path(path, twin(function, START, 30, history=history, renewed=True), tolerance=1e-7)
        assert len(path) == 30


def test_renewed_objective_is_evaluated_where_an_iteration_begins():
    function = drifting(0)
    optimizer = LBFGS(torch.tensor([START], dtype=torch.float64), 6, renewed=True)
    assert optimizer.begun == [True]
    while not all(optimizer.finished):
        if optimizer.begun[0]:
            assert torch.equal(optimizer.trials, optimizer.points)
            assert len(function.asked) == 0 or function.asked[-1] == optimizer.done[0] - 1
        else:
            assert not torch.equal(optimizer.trials, optimizer.points)
            assert function.asked[-1] == optimizer.done[0]
        tell(optimizer, [function])
    assert set(function.asked) == set(range(6))


def test_objective_that_is_not_renewed_is_not_evaluated_twice():
    seen = []

    def function(x, iteration):
        seen.append(tuple(x))
        return rosenbrock(x)

    optimizer = LBFGS(torch.tensor([START], dtype=torch.float64), 20)
    assert optimizer.begun == [True]
    while not all(optimizer.finished):
        tell(optimizer, [function])
        assert optimizer.begun == [False]
    assert len(set(seen)) == len(seen)


def test_minimum_of_one_draw_does_not_end_a_renewed_objective():
    first, second = quadratic([1.0, 1.0], seed=1), quadratic([2.0, 2.0], seed=2)

    def function(x, iteration):
        return (first if iteration < 2 else second)(x)

    _, (path,) = minimise([function], [[4.0, 4.0]], 10, renewed=True)
    # How many iterations the second takes depends on the last bits, and so on the processor.
    assert len(path) > 2
    assert path[1] == pytest.approx(first.minimum, abs=1e-6)
    assert path[-1] == pytest.approx(second.minimum, abs=1e-6)
    _, (path,) = minimise([function], [[4.0, 4.0]], 10)
    assert len(path) < 5


# --- float32


def test_in_float32_it_reaches_the_same_minimum():
    functions = list(FUNCTIONS.values())[:3]
    _, single = minimise(functions, [START] * 3, dtype=torch.float32)
    _, double = minimise(functions, [START] * 3)
    for mine, theirs in zip(single, double, strict=True):
        assert mine[-1] == pytest.approx(theirs[-1], abs=2e-2)
