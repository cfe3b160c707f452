"""Trainings that are interrupted and go on from the state on disk, against the same trainings left alone: to the last bit."""

import copy
import dataclasses
import errno
import functools
import os
import subprocess
import sys

import pytest
import torch
from safetensors.torch import load_file, save, save_file

from sensitometer.configuration import Configuration
from sensitometer.optimizers import LBFGS
from sensitometer.training import Saver, Schedule, full_batch, saving, train_stack
from sensitometer.training.backpropagation import TrainingStack

NEVER = 1e9
RATES = {"sgd": 0.2, "momentum": 0.03, "adam": 0.01, "rmsprop": 0.03, "lbfgs": None}
KINDS = [(optimizer, augmentation) for optimizer in RATES for augmentation in ("none", "shift-flip")]
every_kind = pytest.mark.parametrize(("optimizer", "augmentation"), KINDS)

STEPS_PER_EPOCH = 4
# Networks are looked at every 20 steps; rates decay after step 24, and again; what is kept is kept between two epochs' ends.
DECAY_EPOCHS, CHECKPOINT, STEPS = 6, 30, 62
SCHEDULE = Schedule(decay_every_epochs=DECAY_EPOCHS, checkpoint_steps=CHECKPOINT)


def stop_at_accuracy(optimizer, augmentation):
    """An accuracy that some reach early, some late and some never: moved images are harder, and L-BFGS is the fastest."""
    return (0.8 if augmentation == "none" else 0.6) + (0.15 if optimizer == "lbfgs" else 0.0)


def stack_of(optimizer, augmentation):
    """Networks that stop at different times, one that diverges at once; seeds alone and in pairs; both kinds of labels."""
    rate = RATES[optimizer] or 1.0
    c = Configuration("toy", 24, 3, "relu", optimizer=optimizer, learning_rate=rate, batch_size=10, steps=STEPS)
    if optimizer == "lbfgs":
        c = dataclasses.replace(c, steps=12)
    c = dataclasses.replace(c, augmentation=augmentation)
    changes = (
        {"seed": 4, "init_scale": 0.3},
        {"seed": 1},
        {"seed": 4, "init_scale": 0.3, "learning_rate": rate / 3},
        {"seed": 2, "init_scale": 0.3, "learning_rate": rate / 3},
        {"seed": 1, "labels": "random", "learning_rate": rate / 3},
        {"seed": 4, "init_scale": 0.3, "learning_rate": rate / 6},
        {"seed": 5, "learning_rate": 1e30, "init_scale": 1e30 if optimizer == "lbfgs" else 1.0},
    )
    return [dataclasses.replace(c, **change) for change in changes]


def train(optimizer, augmentation, toy, saver=None):
    schedule = dataclasses.replace(SCHEDULE, stop_at_accuracy=stop_at_accuracy(optimizer, augmentation))
    return train_stack(stack_of(optimizer, augmentation), toy, schedule=schedule, saver=saver)


def same(mine, theirs):
    """Whether two tensors have the same bits, where a nan is one too."""
    return mine.dtype == theirs.dtype and torch.equal(mine.view(torch.uint8), theirs.view(torch.uint8))


def assert_same(found, expected):
    for mine, theirs in zip(found, expected, strict=True):
        assert mine.configuration == theirs.configuration
        assert (mine.state, mine.steps_done) == (theirs.state, theirs.steps_done)
        assert all(same(a, b) for a, b in zip(mine.network.weights, theirs.network.weights, strict=True))
        for name in ("train_accuracy", "test_accuracy", "train_loss", "test_loss"):
            assert repr(getattr(mine, name)) == repr(getattr(theirs, name))


class Interrupted(Exception):  # noqa: N818  it is no error
    """Ends a training in these tests."""


class Counting(Saver):
    """Saves nothing, and counts how often it was asked."""

    def __init__(self, path):
        super().__init__(path, NEVER)
        self.asked = 0

    def due(self):
        self.asked += 1
        return False


class Interrupting(Counting):
    """Saves after so many steps, and ends the training."""

    def __init__(self, path, steps):
        super().__init__(path)
        self.steps = steps

    def due(self):
        super().due()
        return self.asked == self.steps

    def save(self, tensors, numbers):
        super().save(tensors, numbers)
        raise Interrupted


class KeepingAll(Counting):
    """Saves after every step, to a file for each."""

    def __init__(self, folder):
        super().__init__(folder / "0")
        self.folder, self.numbers = folder, []

    def due(self):
        super().due()
        self.path = self.folder / str(self.asked)
        return True

    def save(self, tensors, numbers):
        super().save(tensors, numbers)
        self.numbers.append(copy.deepcopy(numbers))


# --- interrupted, and gone on with


@every_kind
def test_training_goes_on_from_any_step_to_the_same_bits(toy, tmp_path, optimizer, augmentation):
    expected = train(optimizer, augmentation, toy)
    keeping = KeepingAll(tmp_path)
    assert_same(train(optimizer, augmentation, toy, keeping), expected)
    # Every third step, so that each place in an epoch is among them, and a decay of the rates; and both ends.
    for steps in sorted({1, *range(3, keeping.asked, 3), keeping.asked}):
        counting = Counting(tmp_path / str(steps))
        assert_same(train(optimizer, augmentation, toy, counting), expected)
        assert counting.asked == keeping.asked - steps, "it must go on where it was, not begin again"

    # The states above must have been of every sort.
    assert {one.state for one in expected} >= {"diverged", "unfitted"}
    assert len({one.steps_done for one in expected}) >= 3
    assert len({len(numbers["active"]) for numbers in keeping.numbers}) >= 3
    if optimizer != "lbfgs":
        assert keeping.asked == STEPS
        assert {numbers["position"] for numbers in keeping.numbers} == {1, 2, 3, STEPS_PER_EPOCH}
        files = [load_file(tmp_path / str(step)) for step in range(1, STEPS + 1)]
        rates = {float(file["rates"][numbers["active"].index(4)]) for file, numbers in zip(files, keeping.numbers, strict=True)}
        assert len(rates) == 1 + (STEPS - 1) // (DECAY_EPOCHS * STEPS_PER_EPOCH)
        assert [bool(numbers["kept"]) for numbers in keeping.numbers] == [step >= CHECKPOINT for step in range(1, STEPS + 1)]


@pytest.mark.parametrize("augmentation", ["none", "shift-flip"])
def test_lbfgs_goes_on_amid_a_line_search(toy, tmp_path, monkeypatch, augmentation):
    # So strict a condition takes several trials an iteration.
    monkeypatch.setattr(full_batch, "LBFGS", functools.partial(LBFGS, curvature=0.02))
    expected = train("lbfgs", augmentation, toy)
    keeping = KeepingAll(tmp_path)
    assert_same(train("lbfgs", augmentation, toy, keeping), expected)
    answers = [[len(search[3]) for search in numbers["lbfgs"]["searches"] if search] for numbers in keeping.numbers]
    assert {0, 1, 2, 3} <= {count for counts in answers for count in counts}
    for steps in range(1, keeping.asked + 1):
        counting = Counting(tmp_path / str(steps))
        assert_same(train("lbfgs", augmentation, toy, counting), expected)
        assert counting.asked == keeping.asked - steps


@every_kind
# After every step; and after runs of steps that meet the epochs' ends now and then.
@pytest.mark.parametrize("lengths", [(1,), (4,), (3, 1, 7, 2)], ids=str)
def test_training_may_be_interrupted_again_and_again(toy, tmp_path, optimizer, augmentation, lengths):
    expected = train(optimizer, augmentation, toy)
    found, interruptions = None, 0
    while found is None:
        steps = lengths[interruptions % len(lengths)]
        try:
            found = train(optimizer, augmentation, toy, Interrupting(tmp_path / "state", steps))
        except Interrupted:
            interruptions += 1
    assert interruptions >= 2
    assert_same(found, expected)


@every_kind
def test_a_state_may_be_gone_on_from_twice(toy, tmp_path, optimizer, augmentation):
    path = tmp_path / "state"
    with pytest.raises(Interrupted):
        train(optimizer, augmentation, toy, Interrupting(path, 9))
    before = path.read_bytes()
    first, second = (train(optimizer, augmentation, toy, Saver(path, NEVER)) for _ in range(2))
    assert_same(first, second)
    assert path.read_bytes() == before


@pytest.mark.parametrize("steps", [STEPS, STEPS - 1])
def test_state_of_the_last_steps_is_a_state_like_any_other(toy, tmp_path, steps):
    path = tmp_path / "state"
    with pytest.raises(Interrupted):
        train("adam", "none", toy, Interrupting(path, steps))
    counting = Counting(path)
    assert_same(train("adam", "none", toy, counting), train("adam", "none", toy))
    assert counting.asked == STEPS - steps


def test_time_before_the_interruption_counts(toy, tmp_path):
    with pytest.raises(Interrupted):
        train("sgd", "none", toy, Interrupting(tmp_path / "state", 50))
    saver = Saver(tmp_path / "state", NEVER)
    tensors, numbers = saver.load()
    numbers["seconds"] = [1000.0 + one for one in numbers["seconds"]]
    numbers["ended"] = {i: (steps, seconds + 1000.0) for i, (steps, seconds) in numbers["ended"].items()}
    saver.save(tensors, numbers)
    assert all(1000 < one.seconds < 1100 for one in train("sgd", "none", toy, saver))


def test_a_saver_without_a_file_begins_at_the_beginning(toy, tmp_path):
    saver = Counting(tmp_path / "state")
    assert_same(train("momentum", "none", toy, saver), train("momentum", "none", toy))
    assert saver.asked == STEPS
    assert list(tmp_path.iterdir()) == []


def test_a_save_is_due_so_many_seconds_after_the_one_before(monkeypatch, tmp_path):
    now = 1000.0
    monkeypatch.setattr(saving.time, "monotonic", lambda: now)
    saver = Saver(tmp_path / "state", every=10)
    seen = []
    for now in (1000.0, 1009.9, 1010.0, 1013.0, 1022.9, 1023.0):
        seen.append(saver.due())
        if now == 1013.0:  # late, by a step that took three seconds
            saver.save({}, {})
    assert seen == [False, False, True, True, False, True]


# --- killed


PROCESS = """
import os, random, signal, sys, time
from pathlib import Path

import torch
from safetensors.torch import save_file

from sensitometer.configuration import Configuration
from sensitometer.data import Dataset, Points
from sensitometer.training import Saver, Schedule, train_stack

torch.set_num_threads(1)
kills, folder = int(sys.argv[1]), Path(sys.argv[2])
what = dict(zip(("optimizer", "learning_rate", "augmentation", "steps"), (sys.argv[3], *map(eval, sys.argv[4:])), strict=True))
stream = torch.Generator().manual_seed(0)
points = [Points(torch.randn(n, 36, generator=stream), torch.randint(3, (n,), generator=stream)) for n in (200, 20)]
dataset = Dataset("noise", *points, classes=3, shape=(1, 6, 6))
scales_and_seeds = [(scale, seed) for seed in (1, 2, 3) for scale in (0.01, 1.0, 4.0)]
configurations = [Configuration("noise", 32, 3, batch_size=20, init_scale=a, seed=b, **what) for a, b in scales_and_seeds]
schedule = Schedule(stop_at_accuracy=1.0)
saved, unfinished = folder / "state", folder / "state.sensitometer-new"

def train(saver=None):
    trained = train_stack(configurations, dataset, schedule=schedule, saver=saver)
    weights = {f"{i}.{layer}": w.clone() for i, one in enumerate(trained) for layer, w in enumerate(one.network.weights)}
    save_file(weights | {"steps_done": torch.tensor([one.steps_done for one in trained])}, folder / "weights")

def written():
    return saved.stat().st_mtime_ns if saved.exists() else 0

chance = random.Random(1)
for kill in range(kills):
    before = written()
    # A child has read its libraries already, and nothing else.
    child = os.fork()
    if not child:
        train(Saver(saved, every=0.01))
        os._exit(0)
    while written() == before and not os.waitid(os.P_PID, child, os.WEXITED | os.WNOHANG | os.WNOWAIT):
        time.sleep(0.001)
    time.sleep(chance.uniform(0, 0.1))
    # Every other one while it saves.
    deadline = time.monotonic() + (1 if kill % 2 else 0)
    while time.monotonic() < deadline and not unfinished.exists():
        pass
    os.kill(child, signal.SIGKILL)
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
train(Saver(saved, every=0.05) if kills else None)
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs os.fork")
def test_a_process_that_is_killed_five_times_ends_with_the_bits_of_one_that_is_not(tmp_path):
    script = tmp_path / "process.py"
    script.write_text(PROCESS)

    def run(kills):
        folder = tmp_path / str(kills)
        folder.mkdir()
        # A state that is damaged must be an error here: to begin again would give the same bits.
        command = [sys.executable, "-W", "error::UserWarning", script, str(kills), folder, "momentum", "0.01", "'none'", "7_500"]
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        answer = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300)
        assert answer.returncode == 0, answer.stderr
        assert answer.stdout.split() == ["-9"] * kills, "each must have been killed before it was done"
        return load_file(folder / "weights")

    killed, left_alone = run(5), run(0)
    assert torch.equal(killed.pop("steps_done"), done := left_alone.pop("steps_done"))
    assert killed.keys() == left_alone.keys()
    assert all(same(killed[name], left_alone[name]) for name in killed)
    assert len(set(done.tolist())) >= 3, "networks must leave at different times"
    # Whatever a killed process leaves beside the state, the next one overwrites.
    assert {path.name for path in (tmp_path / "5").iterdir()} <= {"state", "state.sensitometer-new", "weights"}


# --- saves that fail, files that are damaged


@pytest.fixture(params=["momentum", "lbfgs"])
def half_way(request, toy, tmp_path):
    """A training that was interrupted: what trains it, its file, and what it must end with."""

    def go_on(saver):
        return train(request.param, "none", toy, saver)

    path = tmp_path / "state"
    with pytest.raises(Interrupted):
        go_on(Interrupting(path, 10))
    return go_on, path, train(request.param, "none", toy)


def fail_to_write(monkeypatch):
    """Have every save write a half of the file, and fail as on a full disk."""

    def write_half(tensors, path, metadata):
        save_file(tensors, path, metadata)
        os.truncate(path, path.stat().st_size // 2)
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(saving, "save_file", write_half)


def fail_to_rename(monkeypatch):
    """Have every save fail when all is written and nothing renamed."""

    def end(*arguments):
        raise OSError("not renamed")

    monkeypatch.setattr(saving.Path, "replace", end)


@pytest.mark.parametrize("fail", [fail_to_write, fail_to_rename], ids=["while writing", "before renaming"])
def test_a_save_that_fails_leaves_the_old_state(half_way, fail):
    go_on, path, expected = half_way
    before = path.read_bytes()
    with pytest.MonkeyPatch.context() as patch:
        fail(patch)
        with pytest.warns(UserWarning, match=r"cannot save the state of a training to .+: it goes on"):
            assert_same(go_on(Saver(path, every=0)), expected)
    assert path.read_bytes() == before
    assert list(path.parent.iterdir()) == [path]


def test_what_a_killed_process_leaves_is_neither_read_nor_in_the_way(half_way):
    go_on, path, expected = half_way
    left = path.with_name("state.sensitometer-new")
    left.mkdir()
    (left / "state").write_bytes(path.read_bytes()[:100])
    (left / "another").write_bytes(b"")
    counting = Counting(path)
    assert_same(go_on(counting), expected)
    with pytest.raises(Interrupted):
        go_on(Interrupting(path, 1))
    again = Counting(path)
    assert_same(go_on(again), expected)
    assert again.asked == counting.asked - 1
    assert list(path.parent.iterdir()) == [path]


def test_a_first_save_that_fails_leaves_no_state(toy, tmp_path):
    path = tmp_path / "state"
    with pytest.MonkeyPatch.context() as patch:
        fail_to_rename(patch)
        with pytest.warns(UserWarning, match="cannot save"):
            train("sgd", "none", toy, Saver(path, every=0))
    assert not path.exists()
    assert Saver(path, NEVER).load() is None


DAMAGES = {
    "empty": lambda content: b"",
    "truncated in the header's length": lambda content: content[:7],
    "truncated in the header": lambda content: content[:100],
    "half": lambda content: content[: len(content) // 2],
    "a byte short": lambda content: content[:-1],
    "a byte longer": lambda content: content + b"x",
    "zeros": lambda content: bytes(len(content)),
    "another kind of file": lambda content: b"PK\x03\x04" + content,
    "without numbers": lambda content: content.replace(b'"numbers"', b'"nothing"', 1),
    "of another format": lambda content: content.replace(b'\\"format\\": 1', b'\\"format\\": 0', 1),
    "a file of other tensors": lambda content: save({"weights.0": torch.zeros(2, 2)}),
    "numbers that are none": lambda content: content.replace(b'"numbers":"{', b'"numbers":"[', 1),
}


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES)
def test_a_damaged_file_gives_a_warning_and_the_training_begins_anew(half_way, damage):
    go_on, path, expected = half_way
    content = path.read_bytes()
    path.write_bytes(damage(content))
    assert path.read_bytes() != content
    saver = Counting(path)
    with pytest.warns(UserWarning, match=rf"\Acannot go on from {path} \(.+\): the training begins again\Z"):
        found = go_on(saver)
    assert_same(found, expected)
    undamaged = Counting(path.parent / "none")
    go_on(undamaged)
    assert saver.asked == undamaged.asked
    # And the damaged file is replaced.
    with pytest.warns(UserWarning, match="cannot go on from"), pytest.raises(Interrupted):
        go_on(Interrupting(path, 10))
    assert_same(go_on(Saver(path, NEVER)), expected)


def test_what_was_loaded_is_not_the_file(half_way):
    _, path, _ = half_way
    tensors, _ = Saver(path, NEVER).load()
    before = {name: tensor.clone() for name, tensor in tensors.items()}
    # Where a tensor begins may decide the last bits of a product.
    assert all(tensor.data_ptr() % 64 == 0 for tensor in tensors.values())
    path.write_bytes(bytes(path.stat().st_size))
    assert all(same(tensors[name], before[name]) for name in before)


# --- the weights kept at the schedule's checkpoint

MINIBATCH = [optimizer for optimizer in RATES if optimizer != "lbfgs"]


@pytest.fixture
def diverge(monkeypatch):
    """Have the networks of one seed diverge in a step, their weights becoming infinite, or so large that their loss does."""
    step_ = TrainingStack.step

    def diverge(seed, in_step, value=torch.inf):
        def step(stack, *arguments):
            step_(stack, *arguments)
            if stack.optimizer.steps == in_step and seed in stack.seeds:
                place = stack.seeds.index(seed)
                first = sum(stack.counts[:place])
                for weight in stack.weights:
                    weight[first : first + stack.counts[place]] = value

        monkeypatch.setattr(TrainingStack, "step", step)

    return diverge


def three(optimizer, steps, augmentation="none"):
    """Networks of three seeds; those of seed 2 are two."""
    c = Configuration("toy", 12, 3, optimizer=optimizer, learning_rate=RATES[optimizer] or 1.0, batch_size=10, steps=steps)
    c = dataclasses.replace(c, augmentation=augmentation)
    changes = (1, 1.0, "true"), (2, 1.0, "random"), (3, 1.0, "random"), (2, 0.5, "true")
    return [dataclasses.replace(c, seed=seed, init_scale=scale, labels=labels) for seed, scale, labels in changes]


def assert_close(found, expected, rtol=1e-4):
    for mine, theirs in zip(found, expected, strict=True):
        assert (mine.configuration, mine.state, mine.steps_done) == (theirs.configuration, theirs.state, theirs.steps_done)
        for a, b in zip(mine.network.weights, theirs.network.weights, strict=True):
            torch.testing.assert_close(a, b, rtol=rtol, atol=rtol * float(b.abs().max()))
        assert mine.train_loss == pytest.approx(theirs.train_loss, rel=1e-3)


DIVERGENCES = {
    "right after": (10, 11, 33, torch.inf),
    "in the last step before a look": (10, 20, 33, torch.inf),
    "after a look": (10, 21, 33, torch.inf),
    "in steps that nobody looks at before the end": (10, 33, 33, torch.inf),
    "with weights that are numbers, in the last step": (10, 33, 33, 1e30),
    "kept in the step of a look": (20, 21, 33, torch.inf),
    "kept in the last step but one": (32, 33, 33, torch.inf),
    "kept in the first step": (1, 2, 9, torch.inf),
}


@pytest.mark.parametrize("optimizer", MINIBATCH)
@pytest.mark.parametrize(("checkpoint", "in_step", "steps", "value"), DIVERGENCES.values(), ids=DIVERGENCES)
def test_a_network_that_diverges_after_the_checkpoint_is_given_as_it_was_then(
    toy, diverge, optimizer, checkpoint, in_step, steps, value
):
    schedule = Schedule(decay_every_epochs=2, checkpoint_steps=checkpoint)
    then = train_stack(three(optimizer, checkpoint), toy, schedule=schedule)
    undisturbed = train_stack(three(optimizer, steps), toy, schedule=schedule)
    diverge(2, in_step, value)
    plainly = train_stack(three(optimizer, steps), toy, schedule=dataclasses.replace(schedule, checkpoint_steps=None))
    found = train_stack(three(optimizer, steps), toy, schedule=schedule)
    assert [one.state == "diverged" for one in plainly] == [False, True, False, True]
    for place in (1, 3):
        mine, theirs = found[place], then[place]
        assert mine.configuration == plainly[place].configuration
        assert all(same(a, b) for a, b in zip(mine.network.weights, theirs.network.weights, strict=True))
        assert (mine.state, mine.steps_done) == (theirs.state, checkpoint)
        assert mine.state in ("fitted", "unfitted")
        assert (mine.train_accuracy, mine.test_accuracy) == (theirs.train_accuracy, theirs.test_accuracy)
        assert (mine.train_loss, mine.test_loss) == pytest.approx((theirs.train_loss, theirs.test_loss), rel=1e-6)
        assert mine.seconds > 0
    for others in ([found[0], found[2]], [plainly[0], plainly[2]]):
        assert_close(others, [undisturbed[0], undisturbed[2]])
        assert [one.steps_done for one in others] == [steps, steps]


@pytest.mark.parametrize(("checkpoint", "in_step"), [(10, 9), (10, 10), (20, 20), (25, 20), (25, 3), (1, 1), (33, 33), (60, 33)])
def test_a_network_that_diverges_before_the_checkpoint_is_diverged(toy, diverge, checkpoint, in_step):
    diverge(2, in_step)
    found, plainly = (
        train_stack(three("momentum", 33), toy, schedule=Schedule(checkpoint_steps=steps)) for steps in (checkpoint, None)
    )
    assert [one.state == "diverged" for one in plainly] == [False, True, False, True]
    assert_same(found, plainly)


@pytest.mark.parametrize("optimizer", RATES)
def test_a_checkpoint_does_not_concern_networks_that_do_not_diverge(toy, optimizer):
    plainly = train_stack(three(optimizer, 33), toy)
    for checkpoint in (1, 10, 20, 32, 33, 34):
        assert_same(train_stack(three(optimizer, 33), toy, schedule=Schedule(checkpoint_steps=checkpoint)), plainly)


def test_a_checkpoint_does_not_concern_networks_that_stopped_before(toy, diverge):
    diverge(2, 27)
    schedule = Schedule(stop_at_accuracy=0.5, checkpoint_steps=25)
    c = dataclasses.replace(three("momentum", 33)[0], learning_rate=0.1)
    others = [dataclasses.replace(c, seed=2, learning_rate=1e-9), dataclasses.replace(c, seed=3, learning_rate=1e-9)]
    stopped, diverged, unfitted = train_stack([c, *others], toy, schedule=schedule)
    assert (stopped.steps_done, diverged.steps_done, unfitted.steps_done) == (20, 25, 33)
    assert_close([stopped], train_stack([c], toy, schedule=schedule))


@pytest.mark.parametrize("optimizer", MINIBATCH)
@pytest.mark.parametrize("augmentation", ["none", "shift-flip"])
def test_what_a_checkpoint_keeps_outlives_an_interruption(toy, tmp_path, diverge, optimizer, augmentation):
    schedule = Schedule(checkpoint_steps=10)
    then = train_stack(three(optimizer, 10, augmentation), toy, schedule=schedule)
    diverge(2, 14)
    expected = train_stack(three(optimizer, 33, augmentation), toy, schedule=schedule)
    keeping = KeepingAll(tmp_path)
    assert_same(train_stack(three(optimizer, 33, augmentation), toy, schedule=schedule, saver=keeping), expected)
    # Before the checkpoint, in its step, after it, with a network of nan in the stack, and when that has left.
    for steps in (9, 10, 11, 13, 14, 20, 21, 33):
        saver = Saver(tmp_path / str(steps), NEVER)
        assert_same(train_stack(three(optimizer, 33, augmentation), toy, schedule=schedule, saver=saver), expected)
    assert [one.steps_done for one in expected] == [33, 10, 33, 10]
    for place in (1, 3):
        assert all(same(a, b) for a, b in zip(expected[place].network.weights, then[place].network.weights, strict=True))


def test_a_checkpoint_does_not_concern_lbfgs(toy):
    c = dataclasses.replace(three("lbfgs", 5)[0], init_scale=1e30)
    (found,) = train_stack([c], toy, schedule=Schedule(checkpoint_steps=1))
    assert (found.state, found.steps_done) == ("diverged", 0)


@pytest.mark.parametrize("value", [0, -1, 1.5, 10.0, True, False, "10", float("nan")])
@pytest.mark.parametrize("name", ["checkpoint_steps", "decay_every_epochs"])
def test_steps_and_epochs_of_a_schedule_are_whole_numbers(refused, name, value):
    with refused(f"{name} must be a whole number of at least 1; got {value!r}"):
        Schedule(**{name: value})


@pytest.mark.parametrize("value", [True, False, "0.9", 0, 1.5])
def test_stop_at_accuracy_is_a_share(refused, value):
    with refused(f"stop_at_accuracy must be a number above 0 and at most 1; got {value!r}"):
        Schedule(stop_at_accuracy=value)
