"""
Slow, plain twins of what the package computes fast: one network, one layer or one point at a time, from the formulas.

Everything is float64; what float64 cannot hold, the losses and probabilities of well-fitted points, is done in decimals.
"""

import math
from decimal import Context, Decimal, localcontext

import torch

DIGITS = Context(prec=60, Emin=-(10**9), Emax=10**9)
# Paper, A.4: where one linear piece ends and the next begins.
BOUNDARIES = {"relu": (0.0,), "relu6": (0.0, 6.0), "tanh": (0.0,), "hardtanh": (-1.0, 1.0), "hardsigmoid": (-0.5, 0.5)}
# Paper, A.5: the variance of the initial weights times fan_in.
GAINS = {"relu": 2, "relu6": 2, "tanh": 1, "hardtanh": 1, "hardsigmoid": 2}
ACTIVATIONS = tuple(BOUNDARIES)


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


def gradients(weights, name, x, y):
    """The gradient of the mean cross-entropy by each weight matrix, from autograd."""
    weights = [weight.detach().double().requires_grad_() for weight in weights]
    return torch.autograd.grad(mean_cross_entropy(forward(weights, name, x), y), weights)


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


def train(weights, name, x, y, batches, rates, optimizer):
    """SGD, w <- w - rate g, or TensorFlow 1's momentum, v <- 0.9 v + g and w <- w - rate v."""
    weights = [weight.double() for weight in weights]
    velocities = [torch.zeros_like(weight) for weight in weights]
    for batch, rate in zip(batches, rates, strict=True):
        found = gradients(weights, name, x[batch], y[batch])
        velocities = [(0.9 * v if optimizer == "momentum" else 0) + g for v, g in zip(velocities, found, strict=True)]
        weights = [w - rate * v for w, v in zip(weights, velocities, strict=True)]
    return weights


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
    """One point at a time, by autograd in float64: `[N, C, D]` of the logits, or of the probabilities."""
    found = []
    for point in x.double():
        J = torch.autograd.functional.jacobian(lambda point: function(point.unsqueeze(0)).squeeze(0), point).flatten(1)
        if of == "probabilities":
            J = softmax_jacobian(function(point.unsqueeze(0)).detach().squeeze(0)) @ J
        found.append(J)
    return torch.stack(found)


def jacobian_norm(function, x, of="probabilities", target=None):
    """The Frobenius norm of each point's Jacobian, or the 2-norm of the row of its class; `[N]`."""
    J = jacobians(function, x, of)
    J = J.flatten(1) if target is None else J[torch.arange(len(x)), target]
    # math.hypot scales, where a sum of squares would underflow.
    return torch.tensor([math.hypot(*row) for row in J.tolist()], dtype=torch.float64)
