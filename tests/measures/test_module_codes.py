"""The codes of any model's activations: by hand, against a plain forward pass, and the models that have none to give."""

import pytest
import torch
from reference import BOUNDARIES, activate
from torch import nn
from torch.nn import functional

from sensitometer.measures.module_codes import ModuleCodes
from sensitometer.networks import MLP, initial_weights, layer_shapes

Z = torch.tensor([[-7.0, -3.0, -1.0, -0.5, 0.0], [0.25, 0.5, 1.0, 3.0, 6.5]])
# Module, name, boundaries; the codes of Z are counted by hand below.
ACTIVATIONS = {
    "ReLU": (nn.ReLU(), "relu", [0.0]),
    "ReLU in place": (nn.ReLU(inplace=True), "relu", [0.0]),
    "ReLU6": (nn.ReLU6(), "relu6", [0.0, 6.0]),
    "ReLU6 in place": (nn.ReLU6(inplace=True), "relu6", [0.0, 6.0]),
    "Hardtanh": (nn.Hardtanh(-2.0, 0.75), "hardtanh", [-2.0, 0.75]),
    "Hardtanh in place": (nn.Hardtanh(inplace=True), "hardtanh", [-1.0, 1.0]),
    "Hardsigmoid": (nn.Hardsigmoid(), "hardsigmoid", [-3.0, 3.0]),
    "Hardsigmoid in place": (nn.Hardsigmoid(inplace=True), "hardsigmoid", [-3.0, 3.0]),
    "Hardswish": (nn.Hardswish(), "hardswish", [-3.0, 3.0]),
    "LeakyReLU": (nn.LeakyReLU(0.1), "leaky_relu", [0.0]),
    "LeakyReLU in place": (nn.LeakyReLU(0.1, inplace=True), "leaky_relu", [0.0]),
    "PReLU": (nn.PReLU(), "prelu", [0.0]),
    "PReLU of channels": (nn.PReLU(5), "prelu", [0.0]),
    "RReLU": (nn.RReLU().eval(), "rrelu", [0.0]),
    "GELU": (nn.GELU(), "gelu", [0.0]),
    "SiLU in place": (nn.SiLU(inplace=True), "silu", [0.0]),
    "Mish": (nn.Mish(), "mish", [0.0]),
    "Tanh": (nn.Tanh(), "tanh", [0.0]),
    "Sigmoid": (nn.Sigmoid(), "sigmoid", [0.0]),
    "ELU": (nn.ELU(), "elu", [0.0]),
    "SELU": (nn.SELU(), "elu", [0.0]),
    "CELU": (nn.CELU(), "celu", [0.0]),
    "Softplus": (nn.Softplus(), "softplus", [0.0]),
    "LogSigmoid": (nn.LogSigmoid(), "log_sigmoid", [0.0]),
    "Threshold": (nn.Threshold(0.4, 9.0), "threshold", [0.4]),
    "Hardshrink": (nn.Hardshrink(0.5), "hardshrink", [-0.5, 0.5]),
    "Softshrink": (nn.Softshrink(0.3), "softshrink", [-0.3, 0.3]),
    "F.relu": (functional.relu, "relu", [0.0]),
    "F.hardtanh": (lambda z: functional.hardtanh(z, min_val=-4.0, max_val=2.0), "hardtanh", [-4.0, 2.0]),
    "torch.relu_": (torch.relu_, "relu", [0.0]),
    "tanh_": (lambda z: z.tanh_(), "tanh", [0.0]),
    "clamp from below": (lambda z: z.clamp(min=0), "clamp", [0.0]),
    "clamp": (lambda z: torch.clamp(z, -1, 1.5), "clamp", [-1.0, 1.5]),
    "clamp_min": (lambda z: z.clamp_min(0.0), "clamp_min", [0.0]),
    "clamp_max_": (lambda z: z.clamp_max_(2.0), "clamp_max", [2.0]),
}


def counted(z, boundaries):
    """Number by number: how many boundaries are strictly below it."""
    return torch.tensor([[sum(boundary < one for boundary in boundaries) for one in row] for row in z.flatten(1).tolist()])


def points(*shape, seed=3):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@pytest.fixture(autouse=True)
def _seeded():
    torch.manual_seed(4)


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_codes_of_one_activation(name):
    model, called, boundaries = ACTIVATIONS[name]
    codes = ModuleCodes(model, Z)
    assert codes.names == [called]
    before = Z.clone()
    (found,) = codes(Z)
    assert (found.dtype, found.shape) == (torch.int8, (2, 5))
    assert found.tolist() == counted(Z, boundaries).tolist()
    assert torch.equal(Z, before), "the points were overwritten"


def test_codes_by_hand():
    assert ModuleCodes(nn.ReLU6(), Z)(Z)[0].tolist() == [[0, 0, 0, 0, 0], [1, 1, 1, 1, 2]]
    # -3 is not strictly below itself.
    assert ModuleCodes(nn.Hardsigmoid(), Z)(Z)[0].tolist() == [[0, 0, 1, 1, 1], [1, 1, 1, 1, 2]]
    assert ModuleCodes(nn.GLU(), Z[:, :4])(Z[:, :4])[0].tolist() == [[0, 0], [1, 1]]


def test_composite_activations_are_seen_in_inference_mode_too():
    @torch.inference_mode()
    def model(z):
        return functional.relu6(functional.celu(functional.selu(z)))

    assert ModuleCodes(model, Z).names == ["selu", "celu", "relu6"]


@pytest.mark.parametrize("activation", ["relu", "relu6", "hardtanh", "tanh"])
def test_networks_of_this_package(activation):
    network = MLP([weight.double() for weight in initial_weights(layer_shapes(6, 5, 4, 3), activation, 2.0, 1)], activation)
    x = 3 * points(8, 6).double()
    h, expected = x, []
    for weight in network.weights[:-1]:
        z = h @ weight.T
        expected.append(counted(z, BOUNDARIES[activation]))
        h = activate(activation, z)
    found = ModuleCodes(network, x)(x)
    assert [codes.tolist() for codes in found] == [codes.tolist() for codes in expected]


class Convolutional(nn.Module):
    """Everything at once: normalisation, in place, by function, an activation used twice and one with parameters."""

    def __init__(self):
        super().__init__()
        self.first, self.norm, self.second = nn.Conv2d(2, 4, 3), nn.BatchNorm2d(4), nn.Conv2d(4, 4, 3, padding=1)
        self.act, self.prelu, self.out = nn.ReLU(inplace=True), nn.PReLU(4), nn.Linear(16, 3)
        self.drop = nn.Dropout(0.5)

    def forward(self, x):
        h = self.act(self.norm(self.first(x)))
        h = self.drop(self.act(self.second(h)))
        h = self.prelu(functional.max_pool2d(h - 0.1, 2))
        return self.out(functional.gelu(h).flatten(1))


@pytest.fixture
def convolutional():
    model = Convolutional()
    with torch.no_grad():
        model(points(50, 2, 6, 6, seed=8))  # gives the normalisation its statistics
    return model.eval()


def convolutional_twin(model, x):
    """Its pre-activations, layer by layer, nothing in place."""
    z1 = model.norm(model.first(x))
    z2 = model.second(z1.clamp(min=0))
    z3 = functional.max_pool2d(z2.clamp(min=0) - 0.1, 2)
    z4 = torch.where(z3 > 0, z3, z3 * model.prelu.weight.view(-1, 1, 1))
    return [z1, z2, z3, z4]


@pytest.mark.parametrize("count", [1, 2, 9])
def test_convolutional_network(convolutional, count):
    x = points(count, 2, 6, 6)
    codes = ModuleCodes(convolutional, points(3, 2, 6, 6, seed=5))
    assert codes.names == ["relu", "relu", "prelu", "gelu"]
    found = codes(x)
    assert [list(one.shape) for one in found] == [[count, 64], [count, 64], [count, 16], [count, 16]]
    with torch.no_grad():
        expected = [counted(z, [0.0]) for z in convolutional_twin(convolutional, x)]
    assert [one.tolist() for one in found] == [one.tolist() for one in expected]
    assert 0 < sum(int(one.sum()) for one in found[2:]) < 32 * count


class Transformer(nn.Module):
    """Sequences of 5 steps; inside, the points are the first dimension or the second."""

    def __init__(self, batch_first, activation="relu"):
        super().__init__()
        layer = nn.TransformerEncoderLayer(8, 2, 16, batch_first=batch_first, activation=activation)
        self.encoder = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
        self.head, self.batch_first = nn.Linear(8, 3), batch_first

    def forward(self, x):
        h = self.encoder(x if self.batch_first else x.transpose(0, 1))
        return self.head(h.mean(1 if self.batch_first else 0))


def transformer_twin(model, x):
    """The pre-activations of both layers, `[n, 5, 16]`, from attention written out."""
    h, found = x, []
    for layer in model.encoder.layers:
        q, k, v = (h @ layer.self_attn.in_proj_weight.T + layer.self_attn.in_proj_bias).chunk(3, -1)
        heads = [
            ((a @ b.transpose(1, 2)) / 2).softmax(-1) @ c
            for a, b, c in zip(q.split(4, -1), k.split(4, -1), v.split(4, -1), strict=True)
        ]
        h = layer.norm1(h + layer.self_attn.out_proj(torch.cat(heads, -1)))
        found.append(layer.linear1(h))
        h = layer.norm2(h + layer.linear2(found[-1].clamp(min=0)))
    return found


@pytest.mark.parametrize("batch_first", [True, False])
def test_transformer(batch_first):
    model, x = Transformer(batch_first).double().eval(), points(4, 5, 8).double()
    codes = ModuleCodes(model, x)
    assert codes.names == ["relu", "relu"]
    with torch.no_grad():
        expected = [counted(z, [0.0]).tolist() for z in transformer_twin(model, x)]
    assert [one.tolist() for one in codes(x)] == expected


def test_the_fast_path_of_transformers_is_switched_off_meanwhile():
    model, x = Transformer(True, "gelu").eval(), points(4, 5, 8)
    before = torch.backends.mha.get_fastpath_enabled()
    assert ModuleCodes(model, x).names == ["gelu", "gelu"]
    assert torch.backends.mha.get_fastpath_enabled() == before
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        ModuleCodes(model, x)
        assert not torch.backends.mha.get_fastpath_enabled()
    finally:
        torch.backends.mha.set_fastpath_enabled(before)


def test_recurrent_network_by_its_steps():
    cell = nn.RNN(3, 4, batch_first=True)
    x = points(6, 5, 3)
    codes = ModuleCodes(lambda x: cell(x)[0][:, -1], x)
    assert codes.names == ["tanh"] * 5
    h, expected = torch.zeros(6, 4), []
    with torch.no_grad():
        for step in range(5):
            z = x[:, step] @ cell.weight_ih_l0.T + cell.bias_ih_l0 + h @ cell.weight_hh_l0.T + cell.bias_hh_l0
            expected.append(counted(z, [0.0]).tolist())
            h = z.tanh()
    assert [one.tolist() for one in codes(x)] == expected


def test_long_short_term_memory_has_five_activations_a_step():
    lstm = nn.LSTM(3, 4, batch_first=True)
    x = points(6, 2, 3)
    codes = ModuleCodes(lambda x: lstm(x)[0][:, -1], x)
    assert sorted(codes.names) == ["sigmoid"] * 6 + ["tanh"] * 4
    assert torch.backends.mkldnn.is_available() == torch._C._get_mkldnn_enabled(), "oneDNN was left switched off"
    assert [list(one.shape) for one in codes(x)] == [[6, 4]] * 10


def test_exported_program_has_the_codes_of_its_module(convolutional):
    x = points(4, 2, 6, 6)
    program = torch.export.export(convolutional, (x,), dynamic_shapes=({0: torch.export.Dim("n")},))
    codes, exported = ModuleCodes(convolutional, x), ModuleCodes(program.module(), x)
    assert exported.names == codes.names
    assert [one.tolist() for one in exported(x)] == [one.tolist() for one in codes(x)]


LAYOUTS = {
    "windows of each point": lambda x: functional.relu(x.reshape(-1, 2)),
    "points inside steps": lambda x: functional.relu(x.T.reshape(-1, 1)),
    "points last": lambda x: functional.relu(x.T),
}


@pytest.mark.parametrize("name", LAYOUTS)
def test_codes_are_of_their_own_point_wherever_it_is(name):
    x = points(7, 6)
    found = ModuleCodes(LAYOUTS[name], x)(x)[0]
    assert sorted(map(tuple, found.T.tolist())) == sorted(map(tuple, (x > 0).int().T.tolist()))


def test_activations_of_weights_have_no_codes():
    scale = nn.Parameter(points(6))
    codes = ModuleCodes(lambda x: functional.relu(x * functional.softplus(scale)), points(3, 6))
    assert codes.names == ["relu"]
    assert len(codes(points(3, 6))) == 1


def test_models_in_float64_and_single_points_are_taken():
    model = nn.Sequential(nn.Linear(4, 5), nn.ReLU()).double()
    x = points(1, 4).double()
    with torch.no_grad():
        assert torch.equal(ModuleCodes(model, x)(x)[0], (model(x) > 0).to(torch.int8))


# --- refusals


def mixing_below_zero(x):
    # Overwritten in place, all of it is 0, and would look as if each point were alone.
    return functional.relu(-1 - x.square() - x.mean(0).square(), inplace=True)


def chance(x):
    return functional.relu(functional.dropout(x, 0.5, training=True))


@pytest.mark.parametrize(
    ("model", "expected"),
    [
        (lambda x: 2 * x, "model has no activation whose boundaries are known"),
        (lambda x: x * functional.relu(torch.ones(6)), "model has no activation that depends on the points"),
        (lambda x: functional.relu(x - x.mean(0)), r"its activation relu, \[7, 6\] for 7 points, changes at other points"),
        (lambda x: functional.tanh(x.mean(0)), r"its activation tanh depends on the points and is \[6\] for any number"),
        (lambda x: functional.relu(x @ x.T), r"its activation relu is \[5, 5\] for 5 points and \[7, 7\] for 7"),
        (mixing_below_zero, r"its activation relu, \[7, 6\] for 7 points, changes at other points"),
        (chance, "changes at other points when one changes, or by chance"),
        (
            lambda x: functional.relu(x) if len(x) == 5 else functional.relu(functional.relu(x)),
            "must call the same activations at all points",
        ),
        (lambda x: x @ torch.ones(4, 3), r"model does not take torch.float32 points \[1, 6\]: mat1 and mat2"),
        (lambda x: x[:, 40], r"model does not take torch.float32 points \[1, 6\]: index 40 is out of bounds"),
        (lambda x: {}["a"], r"model does not take torch.float32 points \[1, 6\]: KeyError 'a'"),
        (lambda x: x.units, "points .*: 'Tensor' object has no attribute 'units'"),
        (nn.Sequential(nn.BatchNorm1d(6), nn.ReLU()), "its layer '0' is in training mode: call model.eval"),
        (None, "model must be .* a module or another callable; got NoneType"),
    ],
)
def test_models_without_codes_of_single_points_are_refused(refused, model, expected):
    with refused(expected):
        ModuleCodes(model, points(3, 6))


def test_layers_in_one_operator_are_refused(refused):
    lstm = nn.LSTM(3, 4, batch_first=True)

    @torch.inference_mode()
    def model(x):
        return functional.relu(lstm(x)[0])

    with refused("model has activations inside the fused operator lstm"):
        ModuleCodes(model, points(3, 2, 3))


def test_a_model_that_goes_another_way_later_is_refused(refused):
    codes = ModuleCodes(lambda x: functional.relu(x) if float(x.max()) < 100 else x, points(3, 6))
    with refused("must call the same activations at all points; it called 1 and 0"):
        codes(1000 + points(3, 6))
