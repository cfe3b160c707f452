"""The monitor: its records against the measures themselves, and a training that does not notice it."""

import copy
import math
import random

import numpy as np
import pytest
import torch
from matplotlib import pyplot
from torch import nn

import sensitometer as sm
from sensitometer.measures import local_complexity
from sensitometer.measuring import monitor as monitoring


def normals(*shape, seed=1):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


X, Y = normals(60, 2, 6, 6), torch.randint(3, (60,), generator=torch.Generator().manual_seed(2))
DIM = torch.export.Dim("points")
LOOP = sm.paths.Polyline(X[:3])


class Counting(nn.Module):
    """Changes buffers in each forward pass, whatever the mode: one in place, the other by a new tensor."""

    def __init__(self):
        super().__init__()
        self.register_buffer("calls", torch.zeros(()))
        self.register_buffer("last", torch.zeros(()))

    def forward(self, x):
        self.calls += 1
        self.last = x.detach().mean()
        return x


def model(*, extra=(), seed=0):
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        layers = nn.Conv2d(2, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Dropout(0.3), nn.Flatten(), nn.Linear(64, 3)
        return nn.Sequential(*extra, *layers)


def train(network, steps, call=lambda step: None, seed=5):
    """Train with an optimizer that has a memory, on minibatches of torch's own random numbers; return the losses."""
    optimizer, losses = torch.optim.Adam(network.parameters(), lr=0.01), []
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        for step in range(1, steps + 1):
            batch = torch.randint(len(X), (16,))
            optimizer.zero_grad()
            loss = nn.functional.cross_entropy(network(X[batch]), Y[batch])
            loss.backward()
            optimizer.step()
            call(step)
            losses.append(float(loss.detach()))
    return losses


def same(first, second):
    return all(torch.equal(a, b) for a, b in zip(first.state_dict().values(), second.state_dict().values(), strict=True))


def test_records_are_the_measures_of_the_model_at_that_step():
    network, copies = model(), []
    monitor = sm.Monitor(network, X[:20], every=3, path=LOOP)
    assert monitor.frame().empty

    def call(step):
        monitor(step)
        copies.append(copy.deepcopy(network).eval())

    train(network, 7, call)
    frame = monitor.frame()
    assert list(frame) == [
        *("step", "jacobian_norm", "jacobian_norm_sem", "local_complexity", "local_complexity_sem", "transitions", "seconds"),
    ]
    assert frame["step"].tolist() == [3, 6] and monitor.method == "exact"
    for row in frame.to_dict("records"):
        trained = copies[int(row["step"]) - 1]
        for name, values in (
            ("jacobian_norm", sm.jacobian_norm(trained, X[:20])),
            ("local_complexity", local_complexity(trained, X[:20])),
        ):
            numbers = values.double().numpy()
            assert row[name] == pytest.approx(numbers.mean(), rel=1e-6)
            assert row[f"{name}_sem"] == pytest.approx(numbers.std(ddof=1) / math.sqrt(20), rel=1e-5)
        assert row["transitions"] == int(sm.transitions(trained, LOOP).total)
        assert row["seconds"] > 0


def test_a_monitored_training_is_the_same_as_one_that_is_not():
    plain, monitored = model(), model()
    monitor = sm.Monitor(monitored, X[:10], every=2, path=LOOP)
    assert train(plain, 8) == train(monitored, 8, monitor)
    assert same(plain, monitored)
    assert len(monitor.frame()) == 4


def test_nothing_changes_in_the_model_or_in_torch():
    network = model()
    # Partly frozen, as in fine-tuning: normalisation in evaluation mode, a parameter without a gradient.
    network[1].eval()
    network[0].weight.requires_grad_(False)
    nn.functional.cross_entropy(network(X), Y).backward()
    monitor = sm.Monitor(network, X[:10], every=1, path=LOOP)
    modes = {name: module.training for name, module in network.named_modules()}
    buffers = dict(network.named_buffers())
    gradients = {name: None if p.grad is None else p.grad.clone() for name, p in network.named_parameters()}
    held, before = dict(network.named_parameters()), copy.deepcopy(network.state_dict())
    states = torch.get_rng_state(), np.random.get_state()[1].tolist(), random.getstate()
    settings = torch.is_grad_enabled(), torch.backends.mha.get_fastpath_enabled(), torch.get_default_dtype()
    monitor()
    assert {name: module.training for name, module in network.named_modules()} == modes
    assert all(buffer is buffers[name] for name, buffer in network.named_buffers())
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())
    for name, parameter in network.named_parameters():
        assert parameter is held[name] and parameter.requires_grad == (name != "0.weight")
        assert (parameter.grad is None) == (gradients[name] is None)
        assert parameter.grad is None or torch.equal(parameter.grad, gradients[name])
    assert torch.equal(torch.get_rng_state(), states[0])
    assert (np.random.get_state()[1].tolist(), random.getstate()) == states[1:]
    assert (torch.is_grad_enabled(), torch.backends.mha.get_fastpath_enabled(), torch.get_default_dtype()) == settings


def test_a_model_that_changes_at_each_forward_pass_is_refused_unchanged(refused):
    network = model(extra=(Counting(),))
    network(X)
    counting = network[0]
    before = counting.calls, counting.last, counting.last.clone()
    with refused("model must not change at a forward pass, but its 0.calls does"):
        sm.Monitor(network, X[:10])
    assert counting.calls is before[0] and counting.calls == 1
    assert counting.last is before[1] and counting.last == before[2]
    assert network.training


def test_a_failure_leaves_the_model_as_it_was(refused):
    network = model()
    monitor = sm.Monitor(network, X[:10], every=1)
    network[5] = nn.Linear(7, 3)
    with refused("model does not take"):
        monitor()
    assert all(module.training for module in network.modules() if module is not network[5])


def test_the_graph_of_a_loss_survives_between_forward_and_backward():
    network = model()
    monitor = sm.Monitor(network, X[:10], every=1)
    loss = nn.functional.cross_entropy(network(X), Y)
    monitor()
    loss.backward()


@pytest.mark.parametrize("context", [torch.no_grad, torch.inference_mode, lambda: torch.autocast("cpu", torch.bfloat16)])
def test_the_context_of_the_call_does_not_change_a_record(context):
    network = model()
    monitor = sm.Monitor(network, X[:10], every=1)
    monitor()
    with context():
        monitor()
        assert torch.is_autocast_enabled("cpu") == (context not in (torch.no_grad, torch.inference_mode))
    frame = monitor.frame().drop(columns=["step", "seconds"])
    assert frame.iloc[0].tolist() == frame.iloc[1].tolist()


def test_dropout_and_batches_do_not_show():
    network = model()
    train(network, 3)
    monitor = sm.Monitor(network, X[:10], every=1)
    monitor()
    evaluated = copy.deepcopy(network).eval()
    other = sm.Monitor(evaluated, X[:10], every=1)
    other()
    assert monitor.frame()["jacobian_norm"].tolist() == other.frame()["jacobian_norm"].tolist()
    assert network.training and not evaluated.training


def test_a_network_of_this_package_trained_by_hand():
    network = sm.MLP([normals(9, 8), normals(3, 9)], "relu")
    x = normals(30, 8)
    monitor = sm.Monitor(network, x[:10], every=2, path=sm.paths.Polyline(x[:3]))
    norms = []
    for _ in range(4):
        weights = [weight.requires_grad_() for weight in network.weights]
        gradients = torch.autograd.grad(nn.functional.cross_entropy(network(x), Y[:30]), weights)
        with torch.no_grad():
            for weight, gradient in zip(weights, gradients, strict=True):
                weight -= 0.5 * gradient
        monitor()
        norms.append(float(sm.jacobian_norm(network, x[:10]).double().mean()))
    assert monitor.frame()["jacobian_norm"].tolist() == norms[1::2]
    assert monitor.frame()["transitions"].iloc[-1] == int(sm.transitions(network, sm.paths.Polyline(x[:3])).total)


def test_regression_has_the_norm_of_its_outputs():
    network = nn.Sequential(nn.Flatten(), nn.Linear(72, 9), nn.ReLU(), nn.Dropout(), nn.Linear(9, 1))
    monitor = sm.Monitor(network, X[:10], every=1, of="outputs")
    monitor()
    expected = sm.jacobian_norm(copy.deepcopy(network).eval(), X[:10], of="outputs").double().mean()
    assert monitor.frame()["jacobian_norm"].item() == float(expected)


def test_half_precision_is_measured_in_a_copy_which_is_said_once():
    network = nn.Sequential(nn.Flatten(), nn.Linear(72, 9), nn.ReLU(), nn.Linear(9, 3)).bfloat16()
    with pytest.warns(UserWarning, match="float32 copy"):
        monitor = sm.Monitor(network, X[:10].bfloat16(), every=1)
    monitor()
    (norm,) = monitor.frame()["jacobian_norm"]
    precise = copy.deepcopy(network).float()
    assert norm == pytest.approx(float(sm.jacobian_norm(precise, X[:10].bfloat16().float()).double().mean()), rel=1e-6)
    assert network[1].weight.dtype == torch.bfloat16


def test_one_of_several_outputs():
    class Several(nn.Module):
        def __init__(self, network):
            super().__init__()
            self.network = network

        def forward(self, x):
            return {"first": x, "scores": self.network(x)}

    network = model()
    monitors = [sm.Monitor(network, X[:5], every=1), sm.Monitor(Several(network), X[:5], every=1, output="scores")]
    for monitor in monitors:
        monitor()
    first, second = (monitor.frame().drop(columns="seconds") for monitor in monitors)
    assert first.equals(second)


def test_of_the_logits():
    network = model().eval()
    monitor = sm.Monitor(network, X[:10], every=1, of="logits")
    monitor()
    assert monitor.frame()["jacobian_norm"].item() == float(sm.jacobian_norm(network, X[:10], of="logits").double().mean())


@pytest.mark.parametrize(
    ("every", "steps", "recorded"),
    [
        (2, [None] * 5, [2, 4]),
        (3, [0, 1, 2, 3, 4, 7], [0, 3, 7]),
        (100, [64, 128, 192, 256, 320], [128, 256, 320]),
        (100, [1234, 1235, 1299, 1300, 1301], [1300]),
        (4, [3, None, None], [4]),
    ],
)
def test_the_steps_that_are_recorded(monkeypatch, every, steps, recorded):
    monitor = sm.Monitor(model(), X[:2], every=every)
    monkeypatch.setattr(monitor, "_measured", dict)
    for step in steps:
        monitor(step)
    assert monitor.frame()["step"].tolist() == recorded


def test_the_share_of_time_is_that_of_the_clock(monkeypatch):
    monitor = sm.Monitor(model(), X[:2], every=2)
    now = [0.0]
    monkeypatch.setattr(monitoring.time, "perf_counter", lambda: now[0])

    def measured():
        now[0] += 3.0
        return {}

    monkeypatch.setattr(monitor, "_measured", measured)
    assert math.isnan(monitor.share)
    for _ in range(4):
        monitor()
        now[0] += 5.0
    # From the first call to the end of the fourth: three pauses, and two records.
    assert monitor.share == pytest.approx(6 / 21)
    assert repr(monitor) == "Monitor(2 points, every 2 steps, 2 records, 29% of the time)"
    assert monitor.frame()["seconds"].tolist() == [3.0, 3.0]


def test_the_method_is_decided_at_the_beginning():
    smooth = nn.Sequential(nn.Flatten(), nn.Linear(72, 5), nn.GELU(), nn.Linear(5, 3))
    monitor = sm.Monitor(smooth, X[:4], every=1, path=LOOP)
    assert monitor.method == "sampled" and "gelu" in monitor.reasons["transitions"]
    monitor()
    expected = sm.transitions(smooth.eval(), LOOP, method="sampled", samples=2**14)
    assert monitor.frame()["transitions"].tolist() == [int(expected.total)]
    assert sm.Monitor(smooth, X[:4]).method is None


def test_a_model_without_activations_has_no_local_complexity():
    linear = nn.Sequential(nn.Flatten(), nn.Linear(72, 3))
    with pytest.warns(UserWarning, match="local complexity is not recorded: model has no activation") as caught:
        monitor = sm.Monitor(linear, X[:4], every=1)
    assert caught[0].filename == __file__
    monitor()
    assert list(monitor.frame()) == ["step", "jacobian_norm", "jacobian_norm_sem", "seconds"]


@pytest.mark.parametrize("value", [math.nan, math.inf, 1e38])
def test_a_training_that_diverges_goes_on_and_its_records_are_nan(value):
    network = model()
    monitor = sm.Monitor(network, X[:4], every=1, path=LOOP)
    monitor()
    with torch.no_grad():
        network[0].weight.fill_(value)
        network[5].weight.fill_(value)
    monitor()
    frame = monitor.frame().drop(columns=["step", "seconds"])
    assert frame.iloc[0].notna().all() and frame.iloc[1].isna().all()


def test_compiled_and_parallel_models_are_measured_inside():
    network = model()
    expected = sm.Monitor(network, X[:4], every=1)
    expected()
    parallel = nn.DataParallel(network)
    for wrapped in (torch.compile(network, backend="eager"), parallel, torch.compile(parallel, backend="eager")):
        monitor = sm.Monitor(wrapped, X[:4], every=1)
        monitor()
        assert monitor.frame()["jacobian_norm"].tolist() == expected.frame()["jacobian_norm"].tolist()


def test_models_with_fused_or_no_modes_are_measured():
    class Recurrent(nn.Module):
        def __init__(self):
            super().__init__()
            self.lstm, self.last = nn.LSTM(12, 5, batch_first=True), nn.Linear(5, 3)

        def forward(self, x):
            return self.last(self.lstm(x.flatten(2))[0][:, -1])

    class Flat(nn.Module):
        def forward(self, x):
            return x.unflatten(1, (-1, 2)).sum(1).relu()

    exported = torch.export.export(nn.Sequential(nn.Flatten(), nn.Linear(72, 6), Flat()), (X,), dynamic_shapes=({0: DIM},))
    x = X.reshape(60, 6, 12)
    for network, points in ((Recurrent(), x), (exported.module(), X)):
        monitor = sm.Monitor(network, points[:5], every=1)
        monitor()
        assert monitor.frame()["local_complexity"].item() >= 0
        assert list(monitor.frame()["local_complexity_sem"].notna()) == [True]


def test_the_points_are_copied():
    x = X[:4].clone()
    monitor = sm.Monitor(model(), x, every=1)
    monitor()
    x.zero_()
    monitor()
    first, second = monitor.frame()["jacobian_norm"]
    assert first == second


def test_each_quantity_has_a_panel(refused):
    network = model()
    monitor = sm.Monitor(network, X[:10], every=2, path=LOOP)
    with refused("there is no record to plot yet: the first comes 2 steps after the beginning"):
        monitor.plot()
    train(network, 8, monitor)
    with torch.no_grad():
        network[0].weight.fill_(math.nan)
    monitor(10)
    axes = monitor.plot()
    frame = monitor.frame().iloc[:4]
    assert [ax.get_title(loc="left") for ax in axes] == ["Jacobian norm", "Local complexity", "Transitions"]
    for ax, name in zip(axes, ("jacobian_norm", "local_complexity", "transitions"), strict=True):
        (line,) = ax.lines
        np.testing.assert_allclose(line.get_xdata(), [2, 4, 6, 8])
        np.testing.assert_allclose(line.get_ydata(), frame[name])
        assert len(ax.collections) == (name != "transitions")
    again = monitor.plot(axes)
    assert again == axes and len(axes[0].lines) == 2
    with refused("axes must be one for each of jacobian_norm, local_complexity, transitions; got 1"):
        monitor.plot(axes[:1])
    pyplot.close("all")


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ({"every": 0}, "every must be a whole number of at least 1; got 0"),
        ({"x": X[:3].numpy()}, r"x must be a tensor of points \[N, ...\]; got ndarray"),
        ({"x": X[:3, :1]}, "model does not take"),
        ({"x": X[:3] * math.nan}, "x must be finite"),
        ({"path": X}, "path must be a Polyline, an Ellipse or None; got Tensor"),
        ({"path": sm.paths.Polyline(X[:3, :1])}, "model does not take"),
        ({"of": "odds"}, "of must be one of"),
        ({"model": sm.MLPStack([normals(2, 3, 72)], "relu")}, "model must be one network; got an MLPStack"),
        ({"model": lambda x: (x - x.mean(0)).relu().flatten(1)}, "model must treat each point alone"),
    ],
)
def test_bad_input_is_refused(refused, arguments, expected):
    arguments = {"model": model(), "x": X[:3]} | arguments
    with refused(expected):
        sm.Monitor(arguments.pop("model"), arguments.pop("x"), **arguments)


@pytest.mark.parametrize(
    ("step", "expected"),
    [(3, "step must rise from call to call; got 3 after 3: count on across epochs"), (1.5, "step must be a whole number")],
)
def test_bad_steps_are_refused(refused, step, expected):
    monitor = sm.Monitor(model(), X[:2])
    monitor(3)
    with refused(expected):
        monitor(step)
