import math

import pytest
import torch
from reference import LOSSES, cross_entropy
from reference import accuracy as slow_accuracy

from sensitometer.evaluation import EVALUATION_CHUNK, accuracy, all_finite, evaluate
from sensitometer.networks import MLPStack


def linear(*logits, dtype=torch.float64):
    """A stack whose network s gives the logits `logits[s]` `[N, C]` at the N unit vectors, and those unit vectors."""
    stacked = torch.stack([torch.as_tensor(one, dtype=dtype) for one in logits])
    return MLPStack([stacked.transpose(1, 2)], "relu"), torch.eye(stacked.shape[1], dtype=dtype)


@pytest.fixture
def stream():
    return torch.Generator().manual_seed(4)


@pytest.mark.parametrize("name", LOSSES)
@pytest.mark.parametrize("classes", [1, 2, 10])
@pytest.mark.parametrize("shared", [True, False])
def test_accuracy_and_loss_are_the_twins(stream, classes, shared, name):
    logits = 3 * torch.randn(4, 30, classes, generator=stream, dtype=torch.float64)
    y = torch.randint(classes, (4, 30), generator=stream)
    y = y[:1].expand(4, -1) if shared else y
    stack, x = linear(*logits)
    found, loss = evaluate(stack, x, y[0] if shared else y, name)
    assert found.dtype == loss.dtype == torch.float64
    assert found.tolist() == [slow_accuracy(*one) for one in zip(logits, y, strict=True)]
    assert loss.tolist() == pytest.approx([LOSSES[name](*one) for one in zip(logits, y, strict=True)], rel=1e-12, abs=0)
    assert accuracy(stack, x, y).tolist() == found.tolist()


@pytest.mark.parametrize("margin", [27.6, 36.8, 100.0, 700.0])
def test_tiny_losses_keep_their_digits(margin):
    logits = torch.tensor([[margin, 0.0, -1.0], [1.0, 1.0 - margin, 1.0 - margin]], dtype=torch.float64)
    y = torch.tensor([0, 0])
    stack, x = linear(logits)
    found, loss = evaluate(stack, x, y)
    assert 0 < float(loss) < 2e-12
    assert float(loss) == pytest.approx(cross_entropy(logits, y), rel=1e-12, abs=0)
    assert float(found) == 1.0


def test_loss_is_the_cross_entropy_unless_told_otherwise(stream):
    stack, x = linear(torch.randn(6, 3, generator=stream, dtype=torch.float64))
    y = torch.randint(3, (6,), generator=stream)
    assert torch.equal(evaluate(stack, x, y)[1], evaluate(stack, x, y, "cross-entropy")[1])
    assert not torch.allclose(evaluate(stack, x, y)[1], evaluate(stack, x, y, "l2")[1])


def test_unknown_loss_is_refused(refused):
    stack, x = linear([[1.0, 0.0]])
    with refused("loss must be one of cross-entropy, l2; got 'hinge'"):
        evaluate(stack, x, torch.tensor([0]), "hinge")


@pytest.mark.parametrize("off", [1e-3, 1e-8, 1e-15])
def test_tiny_half_squares_keep_their_digits(off):
    logits = torch.tensor([[1 - off, 0.0, off], [off, 1.0, 0.0]], dtype=torch.float64)
    y = torch.tensor([0, 1])
    _, loss = evaluate(*linear(logits), y, "l2")
    assert 0 < float(loss) < 1e-5
    assert float(loss) == pytest.approx(LOSSES["l2"](logits, y), rel=1e-12, abs=0)


@pytest.mark.parametrize("name", LOSSES)
@pytest.mark.parametrize("size", [1e4, 1e30, 1e38])
def test_huge_logits_do_not_overflow(size, name):
    logits = torch.tensor([[size, -size, 0.0], [-size, size, size], [size, size, size]])
    y = torch.tensor([0, 0, 1])
    stack, x = linear(logits, dtype=torch.float32)
    _, loss = evaluate(stack, x, y, name)
    assert float(loss) == pytest.approx(LOSSES[name](logits, y), rel=1e-9)
    assert math.isfinite(float(loss))


def test_losses_around_20_keep_their_digits():
    logits = torch.tensor([[0.0, margin] for margin in (19.0, 19.99, 20.01, 21.0, 30.0)], dtype=torch.float64)
    for row in logits:
        stack, x = linear(row.unsqueeze(0))
        _, loss = evaluate(stack, x, torch.tensor([0]))
        assert float(loss) == pytest.approx(cross_entropy(row.unsqueeze(0), torch.tensor([0])), rel=1e-9)


def test_of_equal_logits_the_first_counts():
    logits = torch.tensor([[1.0, 1.0, 0.0], [0.0, 2.0, 2.0], [3.0, 3.0, 3.0]])
    stack, x = linear(logits, dtype=torch.float32)
    assert accuracy(stack, x, torch.tensor([[0, 1, 0]])).tolist() == [1.0]
    assert accuracy(stack, x, torch.tensor([[1, 2, 2]])).tolist() == [0.0]
    assert evaluate(stack, x, torch.tensor([0, 2, 2]))[0].tolist() == [pytest.approx(1 / 3)]


@pytest.mark.parametrize("name", LOSSES)
def test_nan_spoils_one_networks_loss_and_no_others(stream, name):
    logits = torch.randn(2, 6, 3, generator=stream)
    broken = logits[0].clone()
    broken[2, 1] = math.nan
    y = torch.randint(3, (6,), generator=stream)
    found, loss = evaluate(*linear(broken, logits[1], dtype=torch.float32), y, name)
    _, sound = evaluate(*linear(logits[1], dtype=torch.float32), y, name)
    assert math.isnan(loss[0])
    assert loss[1] == pytest.approx(float(sound))
    assert 0 <= float(found[0]) <= 1


def test_point_whose_logits_are_nan_is_not_counted_as_correct():
    stack, x = linear([[math.nan, math.nan], [math.nan, 0.0]], dtype=torch.float32)
    assert evaluate(stack, x, torch.tensor([0, 0]))[0].tolist() == [0.0]
    assert accuracy(stack, x, torch.tensor([[0, 0]])).tolist() == [0.0]


@pytest.mark.parametrize("name", LOSSES)
def test_chunks_do_not_show(stream, name):
    width, points = EVALUATION_CHUNK // 64, 150  # three chunks, the last one shorter
    weights = [torch.randn(1, width, 2, generator=stream), torch.randn(1, 3, width, generator=stream)]
    stack = MLPStack(weights, "relu")
    x, y = torch.randn(points, 2, generator=stream), torch.randint(3, (1, points), generator=stream)
    found, loss = evaluate(stack, x, y, name)
    logits = stack(x)[0]
    assert found.tolist() == [slow_accuracy(logits, y[0])]
    assert accuracy(stack, x, y).tolist() == found.tolist()
    assert float(loss) == pytest.approx(LOSSES[name](logits.double(), y[0]), rel=1e-4)


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("layer", [0, 1])
def test_all_finite_finds_the_network_and_takes_large_weights_for_finite(bad, layer):
    layers = [torch.full((3, 4, 5), 3e38), torch.ones(3, 2, 4)]
    assert all_finite(layers).tolist() == [True, True, True]
    layers[layer][1, 1, 2] = bad
    assert all_finite(layers).tolist() == [True, False, True]


def test_infinities_of_both_signs_do_not_cancel():
    assert all_finite([torch.tensor([[[math.inf, -math.inf]]])]).tolist() == [False]
