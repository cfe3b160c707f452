"""Steps that are replayed from a CUDA graph: on a GPU against the CPU; everywhere, from graphs that are played on the CPU."""

import contextlib
import dataclasses

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from sensitometer.configuration import ACTIVATIONS, OPTIMIZERS, Configuration
from sensitometer.device import arithmetic
from sensitometer.training import Saver, Schedule, train_stack
from sensitometer.training.cuda_graph import WARM_UP_STEPS, GraphedStep
from sensitometer.training.minibatches import MinibatchRun

RATES = {"sgd": 0.05, "momentum": 0.005, "adam": 0.002, "rmsprop": 0.001, "lbfgs": None}
MINIBATCH = [optimizer for optimizer in OPTIMIZERS if optimizer != "lbfgs"]
STEPS_PER_EPOCH = 4
NEVER = 1e9


def stack_of(optimizer, augmentation="none", steps=200, **changes):
    """Networks of three seeds, one of them twice, of different rates and labels."""
    rate = RATES[optimizer] or 1.0
    c = Configuration("toy", 16, 3, "tanh", optimizer=optimizer, batch_size=10, steps=steps, augmentation=augmentation)
    different = ({"seed": 1}, {"seed": 2}, {"seed": 1, "labels": "random"}, {"seed": 3, "init_scale": 0.5})
    rates = (rate, rate / 2, rate / 4, rate)
    c = dataclasses.replace(c, **changes)
    return [dataclasses.replace(c, learning_rate=rate, **one) for rate, one in zip(rates, different, strict=True)]


def leaving(optimizer):
    """Networks that reach the accuracy below at different times, or never, and one that diverges in the middle of them."""
    slower = 16 if optimizer in ("sgd", "momentum") else 1
    configurations = [
        dataclasses.replace(c, learning_rate=c.learning_rate / slower) for c in stack_of(optimizer, activation="relu")
    ]
    return [configurations[0], dataclasses.replace(configurations[1], learning_rate=1e30), *configurations[1:]]


LEAVING = Schedule(stop_at_accuracy=0.75, checkpoint_steps=23)


class OnlyAfter(Saver):
    """Saves once, after so many steps."""

    def __init__(self, path, steps):
        super().__init__(path, NEVER)
        self.steps, self.asked = steps, 0

    def due(self):
        self.asked += 1
        return self.asked == self.steps


# --- everywhere

# Calls that wait for the device, for a number or for the size of an answer, cannot be captured.
FORBIDDEN = ("_local_scalar_dense", "nonzero", "is_nonzero", "equal", "masked_select", "unique", "_to_copy", "repeat_interleave")


class Recording(TorchDispatchMode):
    """Notes the operations with the very tensors and numbers that they are called with, and puts all memory back at its end."""

    def __init__(self):
        super().__init__()
        self.calls, self.before = [], {}

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        assert function._schema.name.removeprefix("aten::") not in FORBIDDEN, f"{function} cannot be captured"
        given = {tensor.untyped_storage().data_ptr() for tensor in self.tensors((args, kwargs))}
        for tensor in self.tensors((args, kwargs)):
            storage = tensor.untyped_storage()
            self.before.setdefault(storage.data_ptr(), (storage, storage.clone()))
        result = function(*args, **kwargs)
        is_view = not function._schema.is_mutable and all(
            tensor.untyped_storage().data_ptr() in given for tensor in self.tensors(result)
        )
        if not is_view:
            self.calls.append((function, args, kwargs, result))
        return result

    def __exit__(self, *arguments):
        super().__exit__(*arguments)
        for storage, content in self.before.values():
            storage.copy_(content)

    @staticmethod
    def tensors(tree):
        return [leaf for leaf in tree_leaves(tree) if isinstance(leaf, torch.Tensor)]


class PlayedGraph:
    """Stands in for a CUDA graph: does the captured operations again, on the same memory."""

    captured = 0

    def replay(self):
        for function, args, kwargs, result in self.calls:
            again = function(*args, **kwargs)
            if not function._schema.is_mutable:
                result.copy_(again)


@contextlib.contextmanager
def play(graph, stream):
    recording = Recording()
    with recording:
        yield
    graph.calls = recording.calls
    PlayedGraph.captured += 1


class NoStream:
    def __init__(self, device=None):
        pass

    def wait_stream(self, other):
        pass


@pytest.fixture
def graphs(monkeypatch):
    """Have every minibatch training take its steps by graphs that are played on the CPU; how many were captured."""

    def take(run, stack):
        run.stack, run.step = stack, GraphedStep(stack)

    monkeypatch.setattr(MinibatchRun, "_take", take)
    monkeypatch.setattr("sensitometer.training.cuda_graph._side_stream", NoStream)
    for name, stand_in in {
        "CUDAGraph": PlayedGraph,
        "graph": play,
        "current_stream": NoStream,
        "stream": contextlib.nullcontext,
        "device": contextlib.nullcontext,
    }.items():
        monkeypatch.setattr(torch.cuda, name, stand_in)
    monkeypatch.setattr(PlayedGraph, "captured", 0)
    return PlayedGraph


def assert_same(found, expected):
    for mine, theirs in zip(found, expected, strict=True):
        assert (mine.configuration, mine.state, mine.steps_done) == (theirs.configuration, theirs.state, theirs.steps_done)
        for a, b in zip(mine.network.weights, theirs.network.weights, strict=True):
            assert torch.equal(a.view(torch.int32), b.view(torch.int32))


@pytest.mark.parametrize("optimizer", MINIBATCH)
@pytest.mark.parametrize("augmentation", ["none", "shift-flip"])
def test_a_graph_of_the_step_does_what_the_step_does(request, toy, optimizer, augmentation):
    configurations = stack_of(optimizer, augmentation)
    schedule = Schedule(decay_every_epochs=9)
    expected = train_stack(configurations, toy, schedule=schedule)
    graphs = request.getfixturevalue("graphs")
    assert_same(train_stack(configurations, toy, schedule=schedule), expected)
    assert graphs.captured == 1


@pytest.mark.parametrize("loss", ["cross-entropy", "l2"])
@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_every_activation_and_loss_can_be_captured(request, toy, activation, loss):
    configurations = stack_of("momentum", steps=30, activation=activation, loss=loss)
    expected = train_stack(configurations, toy)
    request.getfixturevalue("graphs")
    assert_same(train_stack(configurations, toy), expected)


@pytest.mark.parametrize("optimizer", MINIBATCH)
def test_networks_that_leave_have_the_graph_captured_anew(request, toy, optimizer):
    expected = train_stack(leaving(optimizer), toy, schedule=LEAVING)
    departures = {one.steps_done for one in expected} - {200}
    assert len(departures) >= 2
    graphs = request.getfixturevalue("graphs")
    assert_same(train_stack(leaving(optimizer), toy, schedule=LEAVING), expected)
    assert graphs.captured == 1 + len(departures)


@pytest.mark.parametrize("optimizer", MINIBATCH)
@pytest.mark.parametrize("steps", [1, WARM_UP_STEPS, WARM_UP_STEPS + 1, WARM_UP_STEPS + 2])
def test_every_step_is_taken_once(request, toy, optimizer, steps):
    configurations = stack_of(optimizer, steps=steps)
    expected = train_stack(configurations, toy)
    graphs = request.getfixturevalue("graphs")
    assert_same(train_stack(configurations, toy), expected)
    assert graphs.captured == (steps > WARM_UP_STEPS)


@pytest.mark.parametrize("optimizer", MINIBATCH)
def test_a_training_by_graphs_goes_on_from_its_state(request, toy, tmp_path, optimizer):
    configurations = stack_of(optimizer, "shift-flip", steps=60)
    schedule = Schedule(decay_every_epochs=5)
    expected = train_stack(configurations, toy, schedule=schedule)
    request.getfixturevalue("graphs")
    assert_same(train_stack(configurations, toy, schedule=schedule, saver=Saver(tmp_path / "state", every=0)), expected)
    for steps in (22, 40):
        saver = OnlyAfter(tmp_path / str(steps), steps)
        train_stack(configurations, toy, schedule=schedule, saver=saver)
        saver = Saver(tmp_path / str(steps), NEVER)
        assert_same(train_stack(configurations, toy, schedule=schedule, saver=saver), expected)


def test_what_stands_in_for_a_graph_keeps_its_memory_and_its_numbers():
    x, y, n = torch.ones(3), torch.ones(3), 2.0
    graph = PlayedGraph()
    with play(graph, None):
        x.add_(y * n)
    assert x.tolist() == [1, 1, 1], "a capture does nothing"
    y.fill_(10)
    n = 3.0
    graph.replay()
    assert x.tolist() == [21, 21, 21], "it reads what is in its memory, and multiplies by the number of its capture"
    y = torch.zeros(3)
    graph.replay()
    assert x.tolist() == [41, 41, 41], "what replaces its memory it never sees"
    with pytest.raises(AssertionError, match="cannot be captured"), play(PlayedGraph(), None):
        float(x.sum())


# --- on a GPU


def on_a_gpu(test):
    skipped = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
    return skipped(pytest.mark.usefixtures("full_precision")(test))


@pytest.fixture
def full_precision():
    """Compute as surveys do on a GPU."""
    with arithmetic("cuda"):
        yield


def distance(mine, theirs):
    """How far the weights of two networks are apart, relative to the weights."""
    a, b = (torch.cat([weight.flatten().double().cpu() for weight in one.network.weights]) for one in (mine, theirs))
    return float((a - b).norm() / b.norm())


def assert_close(on_gpu, on_cpu, rtol=1e-3):
    for mine, theirs in zip(on_gpu, on_cpu, strict=True):
        assert mine.network.weights[0].is_cuda
        assert (mine.configuration, mine.state, mine.steps_done) == (theirs.configuration, theirs.state, theirs.steps_done)
        if mine.state != "diverged":
            assert distance(mine, theirs) < rtol
            assert (mine.train_loss, mine.test_loss) == pytest.approx((theirs.train_loss, theirs.test_loss), rel=10 * rtol)


@pytest.fixture
def captured(monkeypatch):
    """The steps of the trainings that begin from now on."""
    steps, init = [], GraphedStep.__init__

    def noted(self, stack):
        init(self, stack)
        steps.append(self)

    monkeypatch.setattr(GraphedStep, "__init__", noted)
    return steps


@pytest.fixture(scope="module")
def square(toy):
    """The toy data with images that can be rotated."""
    train, test = (dataclasses.replace(points, x=points.x[:, :4].contiguous()) for points in (toy.train, toy.test))
    return dataclasses.replace(toy, train=train, test=test, shape=(1, 2, 2))


@on_a_gpu
@pytest.mark.parametrize("optimizer", MINIBATCH)
@pytest.mark.parametrize("augmentation", ["none", "shift-flip", "shift-flip-rotate"])
def test_200_steps_are_those_of_the_cpu(toy, square, captured, optimizer, augmentation):
    dataset = square if augmentation == "shift-flip-rotate" else toy
    configurations = stack_of(optimizer, augmentation)
    assert_close(train_stack(configurations, dataset, device="cuda"), train_stack(configurations, dataset))
    assert [step.graph is not None for step in captured] == [True]


@on_a_gpu
@pytest.mark.parametrize("loss", ["cross-entropy", "l2"])
@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_every_activation_and_loss_is_that_of_the_cpu(toy, activation, loss):
    configurations = stack_of("sgd", steps=60, activation=activation, loss=loss)
    assert_close(train_stack(configurations, toy, device="cuda"), train_stack(configurations, toy))


@on_a_gpu
@pytest.mark.parametrize("augmentation", ["none", "shift-flip"])
def test_iterations_of_lbfgs_are_those_of_the_cpu(toy, augmentation):
    # The searches of a network part at the first comparison that rounding decides.
    configurations = stack_of("lbfgs", augmentation, steps=5)
    assert_close(train_stack(configurations, toy, device="cuda"), train_stack(configurations, toy), rtol=1e-2)


@on_a_gpu
@pytest.mark.parametrize("optimizer", MINIBATCH)
def test_networks_leave_on_the_gpu_as_on_the_cpu(toy, captured, optimizer):
    expected = train_stack(leaving(optimizer), toy, schedule=LEAVING)
    departures = {one.steps_done for one in expected} - {200}
    assert_close(train_stack(leaving(optimizer), toy, schedule=LEAVING, device="cuda"), expected)
    assert len([step for step in captured if step.graph is not None]) == 1 + len(departures) >= 3


@on_a_gpu
@pytest.mark.parametrize("optimizer", MINIBATCH)
def test_learning_rates_decay_within_a_captured_graph(toy, captured, optimizer):
    configurations = stack_of(optimizer)
    decaying, constant = Schedule(decay_every_epochs=10), Schedule(decay_every_epochs=None)
    found = train_stack(configurations, toy, schedule=decaying, device="cuda")
    assert len(captured) == 1
    assert_close(found, train_stack(configurations, toy, schedule=decaying))
    for mine, theirs in zip(found, train_stack(configurations, toy, schedule=constant), strict=True):
        assert distance(mine, theirs) > 0.01


@on_a_gpu
@pytest.mark.parametrize("optimizer", MINIBATCH)
@pytest.mark.parametrize("augmentation", ["none", "shift-flip"])
# Turning the mode on warns that it does not see everything.
@pytest.mark.filterwarnings("ignore:Synchronization debug mode")
def test_no_replayed_step_waits_for_the_gpu(toy, monkeypatch, optimizer, augmentation):
    draw, step, watched = MinibatchRun._minibatches, GraphedStep.__call__, []

    def drawn(run):
        torch.cuda.set_sync_debug_mode("default")
        minibatches = draw(run)
        if run.step.graph is not None:
            # From here to the next epoch, or to the end: the whole loop over the steps.
            torch.cuda.set_sync_debug_mode("error")
        return minibatches

    def taken(self, *arguments):
        watched.append(torch.cuda.get_sync_debug_mode())
        step(self, *arguments)

    def last(run, places):
        torch.cuda.set_sync_debug_mode("default")
        return end(run, places)

    end = MinibatchRun._end
    for name, stand_in in (("_minibatches", drawn), ("_end", last)):
        monkeypatch.setattr(MinibatchRun, name, stand_in)
    monkeypatch.setattr(GraphedStep, "__call__", taken)
    configurations = stack_of(optimizer, augmentation, steps=5 * STEPS_PER_EPOCH)
    try:
        train_stack(configurations, toy, schedule=Schedule(decay_every_epochs=1, checkpoint_steps=10), device="cuda")
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert watched == [0] * STEPS_PER_EPOCH + [2] * (4 * STEPS_PER_EPOCH)


@on_a_gpu
@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_a_training_on_a_gpu_goes_on_to_the_same_bits(toy, tmp_path, optimizer):
    configurations = stack_of(optimizer, "shift-flip", steps=8 if optimizer == "lbfgs" else 60)
    expected = train_stack(configurations, toy, device="cuda")
    for steps in (2, 6):
        train_stack(configurations, toy, saver=OnlyAfter(tmp_path / str(steps), steps), device="cuda")
        found = train_stack(configurations, toy, saver=Saver(tmp_path / str(steps), NEVER), device="cuda")
        assert_same(found, expected)


@on_a_gpu
def test_products_are_not_rounded_to_tf32(toy):
    train_stack(stack_of("sgd", steps=8), toy, device="cuda")
    stream = torch.Generator().manual_seed(0)
    a, b = (torch.randn(4, 256, 256, generator=stream) for _ in range(2))
    exact = torch.bmm(a.double(), b.double())
    error = float((torch.bmm(a.cuda(), b.cuda()).cpu() - exact).abs().max() / exact.abs().max())
    assert error < 1e-5, f"TF32 would be off by 1e-4 or more; this is off by {error:.1e}"


@on_a_gpu
@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="needs two CUDA devices")
@pytest.mark.parametrize("optimizer", ["momentum", "adam"])
def test_a_graph_is_captured_on_the_device_that_was_asked_for(toy, optimizer):
    configurations = stack_of(optimizer)
    assert torch.cuda.current_device() == 0
    found = train_stack(configurations, toy, device="cuda:1")
    assert {weight.device.index for one in found for weight in one.network.weights} == {1}
    assert_close(found, train_stack(configurations, toy))
