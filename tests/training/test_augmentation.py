"""The moves of images pixel by pixel, how often each is drawn, and whole trainings against the twin fed with moved images."""

import dataclasses
import math
from collections import Counter

import pytest
import torch
from reference import MINIBATCH, MOVES, accuracy, cross_entropy, forward, minibatches, moved, moved_images, train

from sensitometer.configuration import AUGMENTATIONS, Configuration
from sensitometer.data import Dataset, Points
from sensitometer.networks import initial_weights, layer_shapes
from sensitometer.randomness import generator
from sensitometer.training import Schedule, train_stack
from sensitometer.training.augmentation import LARGEST_SHIFT, Augmentation
from sensitometer.training.backpropagation import TrainingStack

CPU = torch.device("cpu")
SHAPES = {
    "shift-flip": [(1, 8, 8), (3, 9, 12), (2, 12, 9), (1, 2, 3), (2, 1, 5), (1, 1, 1), (3, 3, 3)],
    "shift-flip-rotate": [(1, 8, 8), (3, 10, 10), (2, 3, 3), (1, 1, 1)],
}
CASES = [(name, shape) for name, shapes in SHAPES.items() for shape in shapes]
every_case = pytest.mark.parametrize(("name", "shape"), CASES, ids=str)


def apply(augmentation, images, moves):
    out = torch.full_like(images, math.nan)
    augmentation.apply(images, moves, out=out)
    return out


def images(number, shape, seed=0):
    """Images of which no two pixels are alike."""
    D = math.prod(shape)
    return torch.randperm(number * D, generator=torch.Generator().manual_seed(seed)).view(number, D).float()


def pixel_by_pixel(image, shape, move):
    return torch.tensor(moved(image.view(shape).tolist(), *move)).flatten()


def test_every_kind_but_none_is_here():
    assert {"none", *MOVES} == set(AUGMENTATIONS)
    assert LARGEST_SHIFT == 4
    assert (len(MOVES["shift-flip"]), len(MOVES["shift-flip-rotate"])) == (2 * 81, 12 * 81)


@every_case
def test_moves_are_those_documented_each_as_often(name, shape):
    augmentation = Augmentation(name, shape, CPU)
    (image,) = images(1, shape)
    number = len(augmentation.sources)
    found = apply(augmentation, image.expand(number, -1).contiguous(), torch.arange(number))
    expected = [pixel_by_pixel(image, shape, move) for move in MOVES[name]]
    # As often as each other: images smaller than the shifts have moves that come out alike.
    assert Counter(map(tuple, found.tolist())) == Counter(tuple(one.tolist()) for one in expected)
    assert number == len(MOVES[name])


def test_flips_and_rotations_have_the_documented_probabilities():
    augmentation = Augmentation("shift-flip-rotate", (1, 9, 9), CPU)
    image = images(1, (1, 9, 9))[0].view(9, 9)
    kinds = {
        "as it was": image,
        "upside down": image.rot90(2),
        "left-right": image.flip(1),
        "up-down": image.flip(0),
        "a quarter left": image.rot90(1),
        "a quarter right": image.rot90(-1),
        "transposed": image.T,
        "the other transposed": image.rot90(2).T,
    }
    unshifted = {tuple(one.flatten().tolist()): kind for kind, one in kinds.items()}
    found = apply(augmentation, image.reshape(1, -1).expand(12 * 81, -1).contiguous(), torch.arange(12 * 81))
    counts = Counter(unshifted.get(tuple(one)) for one in found.tolist())
    # 1/2 for each flip, 1/3 for each rotation: a turn by 90 degrees in 2/3 of all, after any flips.
    assert {kind: counts[kind] for kind in kinds} == dict(zip(kinds, (1, 1, 1, 1, 2, 2, 2, 2), strict=True))


def test_shift_flip_neither_rotates_nor_flips_up_down():
    augmentation = Augmentation("shift-flip", (1, 10, 10), CPU)
    image = images(1, (1, 10, 10))[0].view(10, 10)
    found = set(map(tuple, apply(augmentation, image.reshape(1, -1).expand(162, -1).contiguous(), torch.arange(162)).tolist()))
    assert len(found) == 162
    for one in (image, image.flip(1)):
        assert tuple(one.flatten().tolist()) in found
        assert tuple(one.roll((4, -4), (0, 1)).flatten().tolist()) in found
        assert tuple(one.roll((5, 0), (0, 1)).flatten().tolist()) not in found
        assert tuple(one.flip(0).flatten().tolist()) not in found
        assert tuple(one.T.flatten().tolist()) not in found


@every_case
def test_images_keep_their_pixels_each_channel_its_own(name, shape):
    augmentation = Augmentation(name, shape, CPU)
    stream = torch.Generator().manual_seed(1)
    before = torch.randn(200, math.prod(shape), generator=stream)
    after = apply(augmentation, before, augmentation.draw(200, stream))
    channels = [one.view(200, shape[0], -1) for one in (before, after)]
    assert torch.equal(*(one.sort(2).values for one in channels))
    torch.testing.assert_close(after.mean(1), before.mean(1), rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(after.square().mean(1), before.square().mean(1), rtol=1e-5, atol=1e-6)


@every_case
def test_each_image_is_moved_by_its_own_move(name, shape):
    augmentation = Augmentation(name, shape, CPU)
    before = images(30, shape)
    original = before.clone()
    moves = augmentation.draw(30, torch.Generator().manual_seed(2))
    after = apply(augmentation, before, moves)
    assert torch.equal(before, original)
    for image, move, found in zip(before, moves, after, strict=True):
        (alone,) = apply(augmentation, image.unsqueeze(0), move.unsqueeze(0))
        assert torch.equal(alone, found)


def test_channels_move_together():
    augmentation = Augmentation("shift-flip-rotate", (3, 6, 6), CPU)
    plane = images(50, (1, 6, 6))
    before = torch.cat([plane, plane + 1e4, plane + 2e4], 1)
    after = apply(augmentation, before, augmentation.draw(50, torch.Generator().manual_seed(3)))
    first, second, third = after.split(36, 1)
    assert torch.equal(second, first + 1e4)
    assert torch.equal(third, first + 2e4)


@pytest.mark.parametrize("name", MOVES)
def test_moves_are_drawn_equally_often(name):
    augmentation = Augmentation(name, (1, 9, 9), CPU)
    moves = len(MOVES[name])
    counts = augmentation.draw(100 * moves, torch.Generator().manual_seed(4)).bincount(minlength=moves)
    assert len(counts) == moves
    chi_squared = float((counts - 100).double().square().sum()) / 100
    # Its mean is moves - 1 and its variance twice that.
    assert abs(chi_squared - (moves - 1)) < 4 * math.sqrt(2 * (moves - 1))


def test_draws_are_anew_and_those_of_the_stream():
    augmentation = Augmentation("shift-flip", (1, 9, 9), CPU)
    stream, same = (torch.Generator().manual_seed(5) for _ in range(2))
    first, second = augmentation.draw(500, stream), augmentation.draw(500, stream)
    assert first.shape == (500,)
    assert torch.equal(first, augmentation.draw(500, same))
    for drawn in (second, first.roll(1)):
        assert float((first == drawn).double().mean()) < 0.03  # 1 in 162 by chance


@pytest.mark.parametrize("shape", [(1, 2, 3), (3, 9, 8), (1, 1, 2)])
def test_images_that_are_not_square_are_not_rotated(refused, toy, shape):
    _, height, width = shape
    with refused(f"augmentation shift-flip-rotate needs square images; got images of {height} x {width} pixels"):
        Augmentation("shift-flip-rotate", shape, CPU)
    assert len(Augmentation("shift-flip", shape, CPU).sources) == 162


@pytest.mark.parametrize("optimizer", ["sgd", "lbfgs"])
def test_training_refuses_to_rotate_images_that_are_not_square(refused, toy, optimizer):
    c = Configuration("toy", 8, 3, optimizer=optimizer, batch_size=10, steps=1, augmentation="shift-flip-rotate")
    with refused("augmentation shift-flip-rotate needs square images; got images of 2 x 3 pixels"):
        train_stack([c], toy)


# --- whole trainings against the twin

SQUARE = (2, 4, 4)
SMALL = Configuration("square", 8, 3, "tanh", learning_rate=0.1, optimizer="sgd", batch_size=10, steps=50)
RATES = {"sgd": 0.1, "momentum": 0.02, "adam": 0.01, "rmsprop": 0.02}


@pytest.fixture(scope="module")
def square():
    """3 classes of images of 2 channels, 46 of them to train on: 4 minibatches of 10."""
    stream = torch.Generator().manual_seed(0)
    patterns = torch.randn(3, math.prod(SQUARE), generator=stream)
    parts = []
    for points in (46, 20):
        y = torch.randint(3, (points,), generator=stream)
        parts.append(Points(patterns[y] + 0.5 * torch.randn(points, math.prod(SQUARE), generator=stream), y))
    return Dataset("square", *parts, classes=3, shape=SQUARE)


def several(*changes):
    return [dataclasses.replace(SMALL, **change) for change in changes]


def twin(c, data, decay_every=None, steps=None):
    """Each epoch draws a move for each of its images, in the order of the minibatches, from a stream of the seed's own."""
    steps = c.steps if steps is None else steps
    per_epoch = len(data.train.y) // c.batch_size
    batches = minibatches(generator(c.seed, "order"), len(data.train.y), c.batch_size, steps)
    stream, moves = generator(c.seed, "augmentation"), []
    while len(moves) < steps:
        drawn = torch.randint(len(MOVES[c.augmentation]), (per_epoch * c.batch_size,), generator=stream)
        moves += drawn.view(per_epoch, c.batch_size)

    def move(points, step):
        return moved_images(points, data.image_shape, c.augmentation, moves[step])

    rates = [c.learning_rate * 0.1 ** (step // per_epoch // decay_every if decay_every else 0) for step in range(steps)]
    shapes = layer_shapes(data.train.x.shape[1], c.width, c.depth, data.classes)
    weights = initial_weights(shapes, c.activation, c.init_scale, c.seed)
    return train(weights, c.activation, data.train.x, data.train.y, batches, rates, c.optimizer, c.loss, move)


def assert_same_weights(network, expected, rtol=1e-4):
    for mine, theirs in zip(network.weights, expected, strict=True):
        torch.testing.assert_close(mine.double(), theirs.double(), rtol=rtol, atol=rtol * float(theirs.abs().max()))


@pytest.mark.parametrize("optimizer", MINIBATCH)
@pytest.mark.parametrize("augmentation", MOVES)
def test_weights_are_the_twins(square, augmentation, optimizer):
    shared = {"augmentation": augmentation, "optimizer": optimizer, "learning_rate": RATES[optimizer]}
    configurations = several(
        *[{**shared, **one} for one in ({"seed": 2}, {"seed": 1}, {"seed": 2, "learning_rate": RATES[optimizer] / 2})]
    )
    for trained, c in zip(train_stack(configurations, square), configurations, strict=True):
        assert trained.steps_done == 50
        assert_same_weights(trained.network, twin(c, square))
    (unmoved,) = train_stack([dataclasses.replace(configurations[0], augmentation="none")], square)
    moved_ones = twin(configurations[0], square)
    assert max(float((a - b).abs().max()) for a, b in zip(unmoved.network.weights, moved_ones, strict=True)) > 0.05


def test_images_that_are_not_square_are_shifted_and_flipped_in_training(toy):
    (c,) = several({"augmentation": "shift-flip", "loss": "l2"})
    (trained,) = train_stack([c], toy)
    assert_same_weights(trained.network, twin(c, toy))


MIXED = (
    {"seed": 3, "learning_rate": 0.05},
    {"seed": 1, "init_scale": 2.0},
    {"seed": 3, "init_scale": 0.5},
    {"seed": 2, "learning_rate": 0.2},
    {"seed": 1, "learning_rate": 0.01},
    {"seed": 7},
    {"seed": 3},
)


@pytest.mark.parametrize("augmentation", MOVES)
def test_networks_do_not_see_what_else_is_in_their_stack(square, augmentation):
    configurations = several(*[{"augmentation": augmentation, **one} for one in MIXED])
    for trained, c in zip(train_stack(configurations, square), configurations, strict=True):
        (alone,) = train_stack([c], square)
        assert_same_weights(trained.network, alone.network.weights, rtol=1e-5)


def test_networks_that_retire_early_leave_the_others_as_they_were(square):
    configurations = several(*[{"augmentation": "shift-flip", **one, "steps": 150, "width": 20} for one in MIXED])
    schedule = Schedule(decay_every_epochs=12, stop_at_accuracy=0.6)
    stacked = train_stack(configurations, square, schedule=schedule)
    done = [trained.steps_done for trained in stacked]
    assert len(set(done)) >= 3, "networks must leave at different times for this to test anything"
    for trained, c in zip(stacked, configurations, strict=True):
        assert_same_weights(trained.network, twin(c, square, 12, trained.steps_done))


def test_networks_of_a_stack_are_shown_each_image_after_its_move(square):
    augmentation = Augmentation("shift-flip", SQUARE, CPU)
    weights = [torch.zeros(3, 5, 32), torch.zeros(3, 3, 5)]
    stack = TrainingStack(weights, torch.zeros(3), several({"seed": 1}, {"seed": 1}, {"seed": 2}), augmentation)
    index = torch.randperm(46, generator=torch.Generator().manual_seed(6))
    for place in (0, 20):  # two minibatches, each of 10 points for each of two seeds
        points, moves = index[place : place + 20], torch.arange(place, place + 20)
        stack.optimizer.prepare()
        stack.step(square.train.x, points, torch.zeros(3, 1, 10, dtype=torch.int64), moves)
        for point, move, found in zip(points, moves.tolist(), stack.pass_.inputs.flatten(0, 1), strict=True):
            assert torch.equal(found, pixel_by_pixel(square.train.x[point], SQUARE, MOVES["shift-flip"][move]))


def test_fit_is_measured_on_the_images_themselves(square):
    (c,) = several({"augmentation": "shift-flip-rotate"})
    (trained,) = train_stack([c], square)
    logits = forward(trained.network.weights, "tanh", square.train.x)
    assert trained.train_accuracy == accuracy(logits, square.train.y)
    assert trained.train_loss == pytest.approx(cross_entropy(logits, square.train.y), rel=1e-5)


@pytest.mark.parametrize("optimizer", ["momentum", "lbfgs"])
def test_data_are_left_alone(square, optimizer):
    before = square.train.x.clone()
    train_stack(several({"augmentation": "shift-flip-rotate", "optimizer": optimizer, "steps": 6}), square)
    assert torch.equal(square.train.x, before)


# Results that people have stored can be trained again by these: they must never change.
@pytest.mark.parametrize(("name", "expected"), [("shift-flip", [157, 21, 149, 125]), ("shift-flip-rotate", [805, 21, 959, 125])])
def test_moves_of_a_seed_are_what_they_have_always_been(name, expected):
    augmentation = Augmentation(name, SQUARE, CPU)
    drawn = augmentation.draw(4, generator(1, "augmentation"))
    assert drawn.tolist() == expected
    before = images(4, SQUARE)
    for image, move, found in zip(before, drawn.tolist(), apply(augmentation, before, drawn), strict=True):
        assert torch.equal(found, pixel_by_pixel(image, SQUARE, MOVES[name][move]))
