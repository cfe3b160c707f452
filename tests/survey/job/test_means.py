"""Measures of a survey, against the twins in float64, and what the measuring costs beside the training."""

import time
from dataclasses import replace

import pytest
import torch
from reference import crossings, sampled_transitions

import sensitometer as sm
from sensitometer.configuration import ACTIVATIONS
from sensitometer.data import Dataset, Points
from sensitometer.paths import translation
from sensitometer.survey import load_spec
from sensitometer.survey.job.means import mean_jacobian_norms, mean_transitions
from sensitometer.survey.job.train_and_measure import train_and_measure
from sensitometer.survey.scheduling.cost import Measures
from sensitometer.training import train_stack

SAMPLES = 300


@pytest.fixture(scope="module")
def digits():
    return sm.load_dataset("digits", train_points=200)


def small_stack(activation, count=3, **options):
    plain = sm.Configuration("digits", 12, 3, activation=activation, learning_rate=0.05, batch_size=50, steps=100)
    return [replace(plain, seed=seed, **options) for seed in range(1, count + 1)]


def twin(network, dataset, points):
    """The mean of the transitions along the first loops."""
    loops = [translation(x.view(dataset.image_shape)) for x in dataset.test.x[:points]]
    if network.activation == "tanh":
        counts = [sum(sampled_transitions(network.weights, "tanh", loop, SAMPLES)) for loop in loops]
    else:
        counts = [sum(map(len, crossings(network.weights, network.activation, loop))) for loop in loops]
    return sum(counts) / points


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_transitions_are_the_mean_of_the_counts_of_float64(digits, activation):
    results = sm.train(small_stack(activation), digits, jacobian_points=0, transition_points=4, transition_samples=SAMPLES)
    for result in results:
        assert result.row["transitions"] == twin(result.network, digits, 4) > 0


def test_all_test_points_may_be_taken(digits):
    few = replace(digits, test=Points(digits.test.x[:5], digits.test.y[:5]))
    for points in (None, 5, 50):
        (result,) = sm.train(small_stack("relu", 1), few, jacobian_points=0, transition_points=points)
        assert result.row["transitions"] == twin(result.network, few, 5)


@pytest.mark.parametrize("activation", ["hardtanh", "tanh"])
def test_more_loops_than_are_taken_at_once_have_the_same_mean(digits, activation, monkeypatch):
    measures = Measures(0, 5, SAMPLES)
    stack = small_stack(activation)
    together = [result.row["transitions"] for result in train_and_measure(stack, digits, measures=measures)]
    monkeypatch.setattr("sensitometer.survey.job.means.LOOP_NUMBERS", 2 * 8 * 64)
    assert [result.row["transitions"] for result in train_and_measure(stack, digits, measures=measures)] == together


def test_a_network_has_the_transitions_that_it_has_alone(digits):
    # Untrained, since training in another stack may change the last bits of the weights.
    stack = small_stack("hardsigmoid", 4, steps=0)
    measures = Measures(0, 3)
    together = [result.row["transitions"] for result in train_and_measure(stack, digits, measures=measures)]
    alone = [train_and_measure([one], digits, measures=measures)[0].row["transitions"] for one in stack]
    assert together == alone
    assert len(set(together)) == 4


def test_a_network_that_diverged_is_left_out_and_the_others_of_its_stack_are_not(digits):
    first, hot, last = small_stack("tanh")
    results = sm.train([first, replace(hot, learning_rate=1e30), last], digits, transition_points=2, transition_samples=SAMPLES)
    assert [result.row["state"] == "diverged" for result in results] == [False, True, False]
    assert results[1].row["transitions"] is None
    for result in results[::2]:
        assert result.row["transitions"] == twin(result.network, digits, 2)


def test_a_network_whose_boundaries_cannot_be_told_apart_has_no_transitions_and_the_others_have(digits):
    huge, plain = small_stack("hardtanh", 2, steps=0)
    results = train_and_measure([replace(huge, init_scale=1e20), plain], digits, measures=Measures(0, 2, paths=16))
    assert [result.row.get("transitions") is None for result in results] == [True, False]
    assert results[1].row["transitions"] == twin(results[1].network, digits, 2)


def test_images_without_a_translation_are_refused_before_anything_is_trained(refused):
    parts = [Points(torch.randn(20, 6), torch.arange(20) % 2) for _ in range(2)]
    narrow = Dataset("narrow", *parts, classes=2, shape=(1, 6, 1))
    one = sm.Configuration("narrow", 4, 2, batch_size=10, steps=1)
    with refused("transition_points must be 0 for images less than 2 pixels wide.*; those of narrow are 1 x 6 x 1"):
        sm.train([one], narrow, transition_points=1)
    assert sm.train([one], narrow)[0].row["transitions"] is None


def test_measuring_a_network_of_quick_costs_less_than_training_it():
    spec, _ = load_spec("quick")
    dataset, measures = sm.load_dataset("digits"), Measures("all", spec.measure.transitions, spec.measure.transition_samples)
    training = measuring = 0.0
    for width, depth, activation in ((32, 9, "hardtanh"), (64, 5, "relu"), (128, 3, "hardsigmoid"), (128, 7, "tanh")):
        plain = sm.Configuration("digits", width, depth, activation, learning_rate=0.03, batch_size=64, steps=spec.training.steps)
        trainings, measurings = [], []
        # The first round pays for what a process loads and compiles once.
        for _ in range(2):
            # Seconds of the processor, which do not count what other processes take of this machine.
            begin = time.process_time()
            trained = train_stack([plain], dataset, schedule=sm.Schedule(stop_at_accuracy=spec.training.stop_at_accuracy))
            middle = time.process_time()
            stack = sm.MLPStack([weight.unsqueeze(0) for weight in trained[0].network.weights], activation)
            assert mean_jacobian_norms(stack, dataset, measures)
            assert mean_transitions(stack, dataset, measures)
            trainings.append(middle - begin)
            measurings.append(time.process_time() - middle)
        training += min(trainings)
        measuring += min(measurings)
    assert measuring < 0.8 * training
