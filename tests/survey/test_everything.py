"""A survey over everything that the engine trains: every optimizer, activation, kind of labels, loss and augmentation."""

import pandas as pd
import pytest

import sensitometer as sm
from sensitometer.configuration import ACTIVATIONS, AUGMENTATIONS, LABELS, LOSSES, OPTIMIZERS
from sensitometer.store.schema import STATES
from sensitometer.survey import run_survey

# An iteration of L-BFGS takes all points, and as long as several steps of the others.
STEPS = {optimizer: 30 if optimizer == "lbfgs" else 160 for optimizer in OPTIMIZERS}
EVERYTHING = f"""
[survey]
name = "everything"

[data]
name = "digits"
train_points = 200

[space]
width = [16]
depth = [3]
activation = {list(ACTIVATIONS)}
optimizer = {{optimizers}}
learning_rate = [0.02]
batch_size = [50]
labels = {list(LABELS)}
augmentation = {list(AUGMENTATIONS)}
loss = {list(LOSSES)}

[training]
steps = {{steps}}
stop_at_accuracy = 1.0

[measure]
jacobian = 50
"""


@pytest.fixture(scope="module")
def frame(tmp_path_factory):
    frames = []
    for steps in sorted(set(STEPS.values())):
        folder = tmp_path_factory.mktemp("everything")
        optimizers = [optimizer for optimizer in OPTIMIZERS if STEPS[optimizer] == steps]
        (folder / "everything.toml").write_text(EVERYTHING.format(optimizers=optimizers, steps=steps))
        with run_survey(folder / "everything.toml", folder / "out", workers=1) as store:
            assert not (folder / "out" / "saved").exists()
            frames.append(store.frame())
    return pd.concat(frames, ignore_index=True)


AXES = ["optimizer", "activation", "labels", "loss", "augmentation"]


def test_every_combination_is_there_once_in_a_state(frame):
    assert len(frame) == 5 * 5 * 2 * 2 * 3
    assert len(frame[AXES].drop_duplicates()) == len(frame)
    assert set(frame.state) <= set(STATES)
    assert (frame.state == "failed").sum() == 0
    assert (frame.state == "diverged").sum() == 0
    assert (frame.state == "fitted").sum() > 10
    assert ((frame.state == "fitted") == (frame.train_accuracy == 1)).all()
    assert frame.transitions.isna().all()


def test_what_does_not_apply_to_lbfgs_is_null(frame):
    lbfgs = frame.optimizer == "lbfgs"
    for column in ("learning_rate", "batch_size"):
        assert (frame[column].isna() == lbfgs).all()


def test_every_optimizer_learns_with_every_loss(frame):
    plain = frame[(frame.labels == "true") & (frame.augmentation == "none")]
    best = plain.groupby(["optimizer", "loss"]).test_accuracy.max()
    assert len(best) == 10
    assert (best > 0.6).all(), best


def test_random_labels_say_nothing_of_the_test_points(frame):
    assert frame[frame.labels == "random"].test_accuracy.mean() < 0.2


def test_augmentation_makes_the_training_set_harder_to_fit(frame):
    fitted = frame[frame.labels == "true"].groupby("augmentation").train_accuracy.mean()
    assert fitted["none"] > fitted["shift-flip"] > fitted["shift-flip-rotate"]


@pytest.mark.parametrize("optimizer", ["momentum", "lbfgs"])
@pytest.mark.parametrize(("width", "depth"), [(2**16, 2), (256, 65)])
def test_the_widest_and_the_deepest_networks_of_the_paper_train_and_measure(width, depth, optimizer):
    dataset = sm.load_dataset("digits", train_points=100)
    one = sm.Configuration("digits", width, depth, optimizer=optimizer, learning_rate=1e-4, batch_size=50, steps=3)
    (result,) = sm.train([one], dataset, jacobian_points=20)
    assert result.row["state"] in ("fitted", "unfitted")
    assert result.row["steps_done"] == 3
    assert result.row["jacobian_norm"] > 0
