"""Surveys that are made up, so that what the claims compute of them is known."""

import math

import numpy as np
import pandas as pd
import pytest

from sensitometer.analysis import FACTORS, approximation, lower_bound
from sensitometer.claims import check_claims
from sensitometer.configuration import Configuration

# Half of these bins are nearer to a point, half to a middle.
BINS = 96


class Survey:
    """
    Networks, and by their ids the arrays kept of some of them; of the others there is nothing to ask for.

    `asked` are the names of all arrays that were read.
    """

    def __init__(self, rows, arrays=None):
        self.rows, self.own, self.asked = list(rows), arrays or {}, set()

    def frame(self, columns):
        return pd.DataFrame(self.rows, columns=list(columns))

    def kept(self):
        return set(self.own)

    def arrays(self, id_, prefix=""):
        found = {name: values for name, values in self.own[id_].items() if name.startswith(prefix)}
        self.asked |= found.keys()
        return found


MEASURES = {"gap": 0.1, "jacobian_norm": 1.0, "transitions": 100.0, "train_accuracy": 1.0, "test_accuracy": 0.9}


def network(width=10, depth=2, seed=1, state="fitted", dataset="mnist", **settings):
    measures = {name: settings.pop(name, value) for name, value in MEASURES.items()}
    configuration = Configuration(dataset, width, depth, seed=seed, **settings)
    return {"id": configuration.id, **configuration.as_dict(), "state": state, **measures}


CLAIMS = {1: "trajectories", 2: "boundaries", 3: "factors", 4: "gap_and_norm", 5: "gap_and_transitions", 6: "points"}


def claims_of(rows, number, subject=None, quantity=None, arrays=None):
    """The claims of one number. The others, which would take most of the time, are left out; test_check_claims.py has all."""
    with pytest.MonkeyPatch.context() as patch:
        for other in CLAIMS.keys() - {number}:
            patch.setattr(f"sensitometer.claims.{CLAIMS[other]}", lambda *_: [])
        found = check_claims(Survey(rows, arrays))
    assert {claim.number for claim in found} == {number}
    return [claim for claim in found if subject in (None, claim.subject) and quantity in (None, claim.quantity)]


def measured(arrays, **settings):
    """A network for each of `arrays`, of different seeds, and these by its id."""
    rows = [network(seed=seed, **settings) for seed in range(1, len(arrays) + 1)]
    return rows, dict(zip((row["id"] for row in rows), arrays, strict=True))


def pairs(factor, quantity, lower, configurations, seeds=2, **settings):
    """Two networks for each configuration and seed; in the first `lower` of them the better setting has the lower value."""
    kind = FACTORS[factor]
    state = "fitted" if kind.fitted else "unfitted"
    for width in range(1, configurations + 1):
        for seed in range(1, seeds + 1):
            values = (1.0, 2.0) if width <= lower else (2.0, 1.0)
            for setting, value in zip((kind.better[0], kind.worse), values, strict=True):
                yield network(width, seed=seed, state=state, **{factor: setting, quantity: value}, **settings)


def related(strength, of_transitions, configurations=100, dataset="mnist", seed=0):
    """Two seeds a configuration, whose norm and transitions go with the gap so well: 0 not at all, 1 in perfect order."""
    noise = np.random.default_rng(seed)
    for width in range(1, configurations + 1):
        for one in (1, 2):
            gap, norm, transitions = noise.normal(size=3)
            yield network(
                width,
                seed=one,
                dataset=dataset,
                gap=gap,
                jacobian_norm=math.exp(strength * gap + (1 - abs(strength)) * norm),
                transitions=of_transitions * gap + (1 - abs(of_transitions)) * transitions,
            )


def ellipses(measure="jacobian_norm", different=0.0, same=0.0, random=0.0, classes=0.0):
    """
    Arrays along ellipses on which one measure has these contrasts, and the other none.

    `classes` is that of the means of different classes and of one.
    """
    angle = (np.arange(BINS) + 0.5) * 2 * math.pi / BINS
    towards = np.sign(np.cos(3 * angle))  # 1 around the middles, -1 around the points
    arrays = {}
    for kind, contrast, mean in (("different", different, 1 + classes), ("same", same, 1 - classes), ("random", random, 1.0)):
        arrays |= {f"paths.{kind}.{name}": np.ones(BINS) for name in ("jacobian_norm", "transition_density")}
        arrays[f"paths.{kind}.{measure}"] = mean * (1 + contrast * towards)
    return arrays


def on_slice(farther=0.0, elsewhere=0.0):
    """
    Arrays of a slice on which the distances after and before training have the contrast `farther`.

    Distances at the points and anywhere are alike before, and have the contrast `elsewhere` after.
    """
    before, after = 1 - farther, 1 + farther
    return {
        "slice.before.distance": before * np.array([0.5, 1.0, 1.5]),
        "slice.before.anywhere": np.array([before]),
        "slice.after.distance": after * np.array([0.2, 0.8, 2.0]),
        "slice.after.anywhere": np.array([after * (1 - elsewhere) / (1 + elsewhere)]),
    }


def single_points(highest=8, falling=True, correct=20):
    """
    Arrays of correct points and 10 wrong ones; `highest` wrong ones have higher norms than all correct ones, the others lower.

    Among wrong points the cross-entropy falls or rises as the norm rises; the l2 loss does the opposite.
    """
    norms = np.concatenate([100.0 + np.arange(correct), 1000.0 + np.arange(highest), 1.0 + np.arange(10 - highest)])
    losses = np.argsort(np.argsort(-norms if falling else norms)).astype(np.float64)
    count = correct + 10
    predicted = np.zeros(count, np.int16)
    return {
        "points.index": np.arange(count, dtype=np.int32),
        "points.predicted": predicted,
        "points.label": np.where(np.arange(count) < correct, predicted, 1).astype(np.int16),
        "points.confidence": np.full(count, 0.9),
        "points.cross_entropy": losses / 10,
        "points.l2_loss": 3 - losses / 10,
        "points.jacobian_norm": norms,
        "points.label_jacobian_norm": norms / 2,
        "points.logit_jacobian_norm": np.full(count, 5.0),
    }


def about_bounds(inside=1.0, around=1.0, above=1.0, near=1.0, classes=10):
    """
    Arrays of 20 points of which such a share is where the bounds say that they are, the others far away.

    Points that are not inside (5) are around it all the same, unless `around` says otherwise. `above` and `near` are about one
    norm: only one of them may be below 1, and decides where the other points are.
    """
    losses = np.linspace(0.1, 3.0, 20)
    M, place = 25.0 / classes, (np.arange(20) + 0.5) / 20
    low, middle = lower_bound(losses, M, classes), approximation(losses, M, classes)
    norm = np.where(place < above, middle, low / 100)
    return {
        "points.index": np.arange(20, dtype=np.int32),
        "points.predicted": np.zeros(20, np.int16),
        "points.label": np.zeros(20, np.int16),
        "points.confidence": np.exp(-losses),
        "points.cross_entropy": losses,
        "points.l2_loss": losses,
        "points.jacobian_norm": np.where(place < near, norm, norm * 100),
        "points.label_jacobian_norm": np.where(place < around, np.where(place < inside, 1.1, 1.9), 100.0) * low,
        "points.logit_jacobian_norm": np.full(20, 5.0),
    }
