"""
Slow, plain twins of what the package computes fast: one network, one layer or one point at a time, from the formulas.

Everything is float64; what float64 cannot hold, the losses and probabilities of well-fitted points, is done in decimals.
"""

import itertools
import math
from decimal import Context, Decimal, localcontext
from fractions import Fraction

import torch

DIGITS = Context(prec=60, Emin=-(10**9), Emax=10**9)
# Paper, A.4: where one linear piece ends and the next begins.
BOUNDARIES = {"relu": (0.0,), "relu6": (0.0, 6.0), "tanh": (0.0,), "hardtanh": (-1.0, 1.0), "hardsigmoid": (-0.5, 0.5)}
# Paper, A.5: the variance of the initial weights times fan_in.
GAINS = {"relu": 2, "relu6": 2, "tanh": 1, "hardtanh": 1, "hardsigmoid": 2}
ACTIVATIONS = tuple(BOUNDARIES)
# Paper, A.5.4 and A.5.3: equally likely moves by their numbers: (up-down, left-right), quarters of a turn, (down, right).
_SHIFTS = list(itertools.product(range(-4, 5), repeat=2))
MOVES = {
    "shift-flip": [((0, flip), 0, shift) for flip in (0, 1) for shift in _SHIFTS],
    "shift-flip-rotate": [
        (flips, quarter, shift) for quarter in (-1, 0, 1) for flips in itertools.product((0, 1), repeat=2) for shift in _SHIFTS
    ],
}


def activate(name, z):
    """The activation as the paper defines it; autograd takes the derivative at a boundary as 0."""
    if name == "tanh":
        return torch.tanh(z)
    low = BOUNDARIES[name][0]
    high = BOUNDARIES[name][1] if name != "relu" else math.inf
    shift = 0.5 if name == "hardsigmoid" else 0.0
    inside = (z > low) & (z < high)
    return torch.where(inside, z + shift, torch.where(z >= high, high + shift, low + shift))


def slope(name, z):
    """The derivative of the activation at the pre-activations `z`."""
    z = z.double().requires_grad_()
    return torch.autograd.grad(activate(name, z).sum(), z)[0]


def forward(weights, name, x):
    """Logits `[N, C]`: a loop over the layers."""
    h = x.double()
    for layer, weight in enumerate(weights):
        z = torch.einsum("oi,ni->no", weight.double(), h)
        h = activate(name, z) if layer < len(weights) - 1 else z
    return h


def mean_cross_entropy(logits, y):
    """Mean over the points of -log softmax(f)_y."""
    return -logits.log_softmax(1)[torch.arange(len(y)), y].mean()


def mean_half_square(logits, y):
    """Mean over the points of 1/2 ||f - onehot(y)||^2."""
    return (logits - torch.eye(logits.shape[1], dtype=logits.dtype)[y]).square().sum(1).mean() / 2


MEAN_LOSSES = {"cross-entropy": mean_cross_entropy, "l2": mean_half_square}


def gradients(weights, name, x, y, loss="cross-entropy"):
    """The gradient of the mean loss by each weight matrix, from autograd."""
    weights = [weight.detach().double().requires_grad_() for weight in weights]
    return torch.autograd.grad(MEAN_LOSSES[loss](forward(weights, name, x), y), weights)


def minibatches(order, points, size, steps):
    """The indices of each minibatch: the next `size` points of the epoch's random order, its left-over points unused."""
    chosen = []
    while len(chosen) < steps:
        permutation = torch.randperm(points, generator=order)
        chosen += [permutation[start : start + size] for start in range(0, points - size + 1, size)]
    return chosen[:steps]


def learning_rates(initial, steps, steps_per_epoch, decay_every):
    """The learning rate of each step: multiplied by 0.1 every `decay_every` epochs."""
    return [initial * 0.1 ** (step // steps_per_epoch // decay_every if decay_every else 0) for step in range(steps)]


def sgd(w, g, rate, step, memory):
    """w <- w - rate g."""
    return w - rate * g, memory


def momentum(w, g, rate, step, memory):
    """TensorFlow 1's: v <- 0.9 v + g, w <- w - rate v."""
    v = 0.9 * (0 if memory is None else memory) + g
    return w - rate * v, v


def adam(w, g, rate, step, memory):
    """TensorFlow 1's: epsilon is added to sqrt(v) itself, and the bias corrections are in the rate of step 1, 2, ..."""
    m, v = (torch.zeros_like(w), torch.zeros_like(w)) if memory is None else memory
    m, v = 0.9 * m + 0.1 * g, 0.999 * v + 0.001 * g**2
    corrected = rate * math.sqrt(1 - 0.999**step) / (1 - 0.9**step)
    return w - corrected * m / (v.sqrt() + 1e-8), (m, v)


def rmsprop(w, g, rate, step, memory):
    """TensorFlow 1's: the mean square is 1 at first, and epsilon is inside the root."""
    square = 0.9 * (torch.ones_like(w) if memory is None else memory) + 0.1 * g**2
    return w - rate * g / (square + 1e-10).sqrt(), square


# Optimizers of minibatches. Each takes (weights, gradient, learning rate, number of the step from 1, memory, None at first).
MINIBATCH = {"sgd": sgd, "momentum": momentum, "adam": adam, "rmsprop": rmsprop}


def train(weights, name, x, y, batches, rates, optimizer, loss="cross-entropy", move=None):
    """The weights after a step on each minibatch; `move(images, step)`, with steps from 0, augments it."""
    weights = [weight.double() for weight in weights]
    memories = [None] * len(weights)
    for step, (batch, rate) in enumerate(zip(batches, rates, strict=True)):
        images = x[batch] if move is None else move(x[batch], step)
        found = gradients(weights, name, images, y[batch], loss)
        steps = (MINIBATCH[optimizer](w, g, rate, step + 1, m) for w, g, m in zip(weights, found, memories, strict=True))
        weights, memories = zip(*steps, strict=True)
    return list(weights)


def dot(a, b):
    return sum(one * other for one, other in zip(a, b, strict=True))


def inverse_hessian_times(pairs, g):
    """Nocedal and Wright, algorithm 7.4: `pairs` (s, y), the oldest first; H_0 = s^T y / y^T y of the newest, times 1."""
    q, alphas = list(g), []
    for s, y in reversed(pairs):
        alphas.append(dot(s, q) / dot(s, y))
        q = [one - alphas[-1] * other for one, other in zip(q, y, strict=True)]
    if pairs:
        s, y = pairs[-1]
        q = [dot(s, y) / dot(y, y) * one for one in q]
    for (s, y), alpha in zip(pairs, reversed(alphas), strict=True):
        beta = dot(y, q) / dot(s, y)
        q = [one + (alpha - beta) * other for one, other in zip(q, s, strict=True)]
    return q


def searched(steps, along):
    """The step that a line search ends at, None for none; `steps` yields steps and is sent `along(step)` for each."""
    step = next(steps)
    while True:
        try:
            step = steps.send(along(step))
        except StopIteration as end:
            return step if end.value else None


def lbfgs(function, point, iterations, search, history=10, gradient_tolerance=1e-5, change_tolerance=2.2e-9, renewed=False):
    """
    L-BFGS of one network, in lists of numbers; the points where its iterations ended.

    `function(point, iteration)` is the loss and its gradient; `search(along, value, slope, first)` the step of a line search, or
    None, where `along(step)` is the loss and its slope. A renewed function is another one in every iteration: neither a gradient
    that is not 0 nor a small decrease ends it.
    """
    point, pairs, path = list(point), [], []
    flat = 0 if renewed else gradient_tolerance
    while len(path) < iterations:
        value, g = function(point, len(path))
        if not math.isfinite(value) or max(map(abs, g)) <= flat:
            break
        direction = [-one for one in inverse_hessian_times(pairs, g)]
        if not dot(direction, g) < 0:
            pairs, direction = [], [-one for one in g]

        def to(step, point=point, direction=direction):
            return [one + step * other for one, other in zip(point, direction, strict=True)]

        def along(step, to=to, direction=direction):
            there, slope = function(to(step), len(path))
            return there, dot(slope, direction)

        step = search(along, value, dot(direction, g), 1.0 if pairs else min(1.0, 1 / math.sqrt(dot(g, g))))
        if step is None and not pairs:
            break
        if step is None:
            pairs = []
            continue
        there, after = function(to(step), len(path))
        s = [one - other for one, other in zip(to(step), point, strict=True)]
        y = [one - other for one, other in zip(after, g, strict=True)]
        if dot(s, y) > 1e-10 * dot(y, y):
            pairs = [*pairs, (s, y)][-history:]
        point = to(step)
        path.append(point)
        if not renewed and value - there <= change_tolerance * max(abs(value), abs(there), 1):
            break
    return path


def moved(image, flips, quarters, shift):
    """
    An image `[channels][rows][columns]` after a move, pixel by pixel.

    `flips` (up-down, left-right), `quarters` counter-clockwise, then `shift` (down, right) with wrapping.
    """
    height, width = len(image[0]), len(image[0][0])
    new = [[[None] * width for _ in range(height)] for _ in image]
    for row in range(height):
        for column in range(width):
            i, j = (height - 1 - row if flips[0] else row), (width - 1 - column if flips[1] else column)
            for _ in range(quarters % 4):
                i, j = width - 1 - j, i
            for channel, plane in enumerate(image):
                new[channel][(i + shift[0]) % height][(j + shift[1]) % width] = plane[row][column]
    return new


def moved_images(images, shape, name, moves):
    """The images `[N, D]`, each after its move, by the numbers of moves of one kind of augmentation."""
    after = [moved(image.view(shape).tolist(), *MOVES[name][move]) for image, move in zip(images, moves.tolist(), strict=True)]
    return torch.tensor(after, dtype=images.dtype).flatten(1)


def accuracy(logits, y):
    """The share of points whose largest logit, the first of equals, is that of their label."""
    chosen = [max(range(len(f)), key=f.__getitem__) for f in logits.tolist()]
    return sum(one == label for one, label in zip(chosen, y.tolist(), strict=True)) / len(y)


def cross_entropy(logits, y):
    """Mean over the points of log(sum_j exp(f_j)) - f_y, with digits enough for losses of 1e-300."""
    with localcontext(DIGITS, prec=400):
        total = Decimal(0)
        for f, label in zip(logits.tolist(), y.tolist(), strict=True):
            top = Decimal(max(f))
            total += sum((Decimal(one) - top).exp() for one in f).ln() + top - Decimal(f[label])
        return float(total / len(y))


def half_square(logits, y):
    """Mean over the points of 1/2 sum_j (f_j - onehot(y)_j)^2, with digits enough for losses of 1e-300."""
    with localcontext(DIGITS, prec=400):
        total = Decimal(0)
        for f, label in zip(logits.tolist(), y.tolist(), strict=True):
            total += sum((Decimal(one) - (j == label)) ** 2 for j, one in enumerate(f)) / 2
        return float(total / len(y))


LOSSES = {"cross-entropy": cross_entropy, "l2": half_square}


def softmax_jacobian(logits):
    """diag(p) - p p^T of one point's logits `[C]`, each entry rounded from 60 digits; `[C, C]`."""
    with localcontext(DIGITS):
        top = max(Decimal(f) for f in logits.tolist())
        exponentials = [(Decimal(f) - top).exp() for f in logits.tolist()]
        total = sum(exponentials)
        p = [e / total for e in exponentials]
        # 1 - p_i as the sum of the others, which 60 digits would round to 0 as well when they are small enough.
        rest = [sum(exponentials[:i] + exponentials[i + 1 :]) / total for i in range(len(p))]
        entries = [[float(p[i] * rest[i] if i == j else -p[i] * p[j]) for j in range(len(p))] for i in range(len(p))]
    return torch.tensor(entries, dtype=torch.float64)


def jacobians(function, x, of):
    """By autograd in float64: `[N, C, D]` of the logits, or of the probabilities, of a function that treats each point alone."""
    x = x.double()
    # The gradient of the sum over the points, `[C, N, ...]`, holds each point's Jacobian.
    J = torch.autograd.functional.jacobian(lambda x: function(x).sum(0), x).transpose(0, 1).flatten(2)
    if of == "probabilities":
        J = torch.stack([softmax_jacobian(logits) for logits in function(x).detach()]) @ J
    return J


def jacobian_norm(function, x, of="probabilities", target=None):
    """The Frobenius norm of each point's Jacobian, or the 2-norm of the row of its class; `[N]`."""
    J = jacobians(function, x, of)
    J = J.flatten(1) if target is None else J[torch.arange(len(x)), target]
    # math.hypot scales, where a sum of squares would underflow.
    return torch.tensor([math.hypot(*row) for row in J.tolist()], dtype=torch.float64)


def piece_values(weights, name, layer, path, t):
    """
    Pre-activations `[n, W]` of a layer at points of a path, in float64, from the first layer up.

    A unit at its own crossing is on its boundary up to rounding, and is put there: what is 0 above it must be 0 exactly.
    """
    h = type(path)(*_doubled(path)).points(t)
    for place, weight in enumerate(weights[: layer + 1]):
        z = h @ weight.double().T
        for boundary in BOUNDARIES[name]:
            z = torch.where((z - boundary).abs() < 1e-13 * z.abs().max(), boundary, z)
        h = activate(name, z) if place < layer else z
    return h


def _doubled(path):
    return [value.double() if isinstance(value, torch.Tensor) else value for value in vars(path).values()]


def crossings(weights, name, path):
    """
    For each hidden layer the parameters at which its units cross their boundaries, sorted.

    A piece at a time: on a straight one a pre-activation is a + b t, on an arc a + b cos t + c sin t, with the coefficients from
    two or three points of the piece; the crossings of all layers below are the ends of pieces.
    """
    straight = hasattr(path, "vertices")
    knots = torch.arange(int(path.span) + 1).double() if straight else torch.linspace(0, path.span, 9).double()
    found = []
    for layer in range(len(weights) - 1):
        begin, end = knots[:-1], knots[1:]
        z = piece_values(weights, name, layer, path, knots)
        here = []
        for boundary in BOUNDARIES[name]:
            if straight:
                odd = (z[:-1] > boundary) != (z[1:] > boundary)
                share = (boundary - z[:-1]) / (z[1:] - z[:-1])
                here.append((begin.unsqueeze(1) + share * (end - begin).unsqueeze(1))[odd])
            else:
                here.append(arc_crossings(z, piece_values(weights, name, layer, path, (begin + end) / 2), begin, end, boundary))
        found.append(torch.cat(here).sort().values)
        knots = torch.cat([knots, found[-1]]).sort().values
    return found


def arc_crossings(z, middle, begin, end, boundary):
    """Where a + b cos s + c sin s, through three points of an arc, is at it: atan2(c, b) +- arccos((boundary - a) / r)."""
    half = ((end - begin) / 2).unsqueeze(1)
    c = (z[1:] - z[:-1]) / (2 * half.sin())
    b = (middle - (z[1:] + z[:-1]) / 2) / (1 - half.cos())
    cosine = (boundary - (middle - b)) / torch.hypot(b, c)
    centre = ((begin + end) / 2).unsqueeze(1)
    roots = []
    for sign in (-1, 1):
        s = torch.atan2(c, b) + sign * cosine.clamp(-1, 1).arccos()
        s = torch.remainder(s + math.pi, 2 * math.pi) - math.pi
        roots.append((centre + s)[(cosine.abs() <= 1) & (s.abs() < half)])
    return torch.cat(roots)


def rational_transitions(weights, name, vertices):
    """
    The exact counts along an open polyline, by hidden layer, in rational numbers.

    They are the changes of all codes between the vertices, the crossings of all layers below, and the middles between these.
    """
    weights = [[[Fraction(w) for w in row] for row in weight.tolist()] for weight in weights]
    limits = [Fraction(boundary) for boundary in BOUNDARIES[name]]

    def pre_activations(point, layer):
        for weight in weights[:layer]:
            z = [dot(row, point) for row in weight]
            shift = Fraction(1, 2) if name == "hardsigmoid" else 0
            point = [min([max(one, limits[0]), *limits[1:]]) + shift for one in z]
        return [dot(row, point) for row in weights[layer]]

    counts = [0] * (len(weights) - 1)
    for begin, end in itertools.pairwise([[Fraction(one) for one in vertex] for vertex in vertices.tolist()]):
        direction = [b - a for a, b in zip(begin, end, strict=True)]
        knots = [Fraction(0), Fraction(1)]
        for layer in range(len(counts)):
            points = sorted(knots + [(a + b) / 2 for a, b in itertools.pairwise(knots)])
            at = [pre_activations([a + t * d for a, d in zip(begin, direction, strict=True)], layer) for t in points]
            for (t, z), (u, y) in itertools.pairwise(zip(points, at, strict=True)):
                for one, other in zip(z, y, strict=True):
                    counts[layer] += sum((one > limit) != (other > limit) for limit in limits)
                    knots += [t + (limit - one) / (other - one) * (u - t) for limit in limits if (one > limit) != (other > limit)]
            knots = sorted(set(knots))
    return counts


def codes(name, z):
    """The number of boundaries strictly below each pre-activation."""
    return sum((z > boundary).long() for boundary in BOUNDARIES[name])


def sampled_transitions(weights, name, path, samples):
    """The paper's sum over a loop, or along an open line, for each hidden layer; in float64."""
    t = path.parameters(samples)
    counts = []
    for layer in range(len(weights) - 1):
        code = codes(name, piece_values(weights, name, layer, path, t))
        if path.closed:
            code = torch.cat([code, code[:1]])
        counts.append(int(code.diff(dim=0).abs().sum()))
    return counts
