"""Models of every kind that users bring along: small, in evaluation mode, with parameters that one seed determines."""

import warnings
from collections import OrderedDict, namedtuple
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn import functional
from torch.utils.checkpoint import checkpoint


class Function(nn.Module):
    """A forward pass `function(x, *modules)`, whose parts are its parameters."""

    def __init__(self, function, *modules):
        super().__init__()
        self.function, self.parts = function, nn.ModuleList(modules)

    def forward(self, x):
        return self.function(x, *self.parts)


def mlp(activation=nn.ReLU, inputs=6, outputs=4):
    return nn.Sequential(
        nn.Linear(inputs, 16),
        activation(),
        nn.Linear(16, 16),
        activation(),
        nn.Linear(16, 16),
        activation(),
        nn.Linear(16, outputs),
    )


def convolutional(*, inplace=False, outputs=5):
    return nn.Sequential(
        *(nn.Conv2d(2, 6, 3, padding=1), nn.BatchNorm2d(6), nn.ReLU(inplace), nn.MaxPool2d(2)),
        *(nn.Conv2d(6, 8, 3, groups=2), nn.GroupNorm(4, 8), nn.ReLU6(inplace), nn.AdaptiveAvgPool2d(1)),
        *(nn.Flatten(), nn.Linear(8, outputs)),
    )


class Attention(nn.Module):
    """Multi-head attention of torch's fused kind."""

    def __init__(self, width, heads):
        super().__init__()
        self.heads, self.inputs, self.outputs = heads, nn.Linear(width, 3 * width), nn.Linear(width, width)

    def forward(self, h, mask=None):
        n, words, width = h.shape
        q, k, v = self.inputs(h).view(n, words, 3, self.heads, width // self.heads).permute(2, 0, 3, 1, 4)
        h = functional.scaled_dot_product_attention(q, k, v, attn_mask=mask)
        return self.outputs(h.transpose(1, 2).reshape(n, words, width))


class Block(nn.Module):
    """A pre-norm transformer block."""

    def __init__(self, width, heads):
        super().__init__()
        self.norm1, self.attention, self.norm2 = nn.LayerNorm(width), Attention(width, heads), nn.LayerNorm(width)
        self.mlp = nn.Sequential(nn.Linear(width, 2 * width), nn.GELU(), nn.Linear(2 * width, width))

    def forward(self, h, mask=None):
        h = h + self.attention(self.norm1(h), mask)
        return h + self.mlp(self.norm2(h))


class ViT(nn.Module):
    """A vision transformer: patches, a class token, positions."""

    def __init__(self, side=8, patch=4, width=16, heads=2, blocks=2, classes=5):
        super().__init__()
        self.patches = nn.Conv2d(3, width, patch, patch)
        self.token = nn.Parameter(torch.randn(1, 1, width))
        self.positions = nn.Parameter(0.1 * torch.randn(1, 1 + (side // patch) ** 2, width))
        self.blocks = nn.ModuleList(Block(width, heads) for _ in range(blocks))
        self.norm, self.head = nn.LayerNorm(width), nn.Linear(width, classes)

    def forward(self, x):
        h = self.patches(x).flatten(2).transpose(1, 2)
        h = torch.cat([self.token.expand(len(x), -1, -1), h], 1) + self.positions
        for block in self.blocks:
            h = block(h)
        return self.head(self.norm(h)[:, 0])


class Mixer(nn.Module):
    """An MLP-mixer of one layer."""

    def __init__(self, patches=4, width=12, classes=5):
        super().__init__()
        self.patches, self.norm1, self.norm2 = nn.Conv2d(3, width, 4, 4), nn.LayerNorm(width), nn.LayerNorm(width)
        self.tokens = nn.Sequential(nn.Linear(patches, 8), nn.GELU(), nn.Linear(8, patches))
        self.channels = nn.Sequential(nn.Linear(width, 24), nn.GELU(), nn.Linear(24, width))
        self.head = nn.Linear(width, classes)

    def forward(self, x):
        h = self.patches(x).flatten(2).transpose(1, 2)
        h = h + self.tokens(self.norm1(h).transpose(1, 2)).transpose(1, 2)
        return self.head((h + self.channels(self.norm2(h))).mean(1))


class TextTransformer(nn.Module):
    """`nn.TransformerEncoder` on embeddings `[n, words, width]`, whose padding is said by a mask."""

    def __init__(self, width=8, classes=3):
        super().__init__()
        layer = nn.TransformerEncoderLayer(width, 2, 16, batch_first=True)
        self.encoder, self.head = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False), nn.Linear(width, classes)

    def forward(self, x, padding=None):
        return self.head(self.encoder(x, src_key_padding_mask=padding).mean(1))


class ModelOutput(OrderedDict):
    """Fields by name, place and attribute, as language models return them."""

    def __getattr__(self, name):
        if name not in self:
            raise AttributeError(name)
        return self[name]


class Bert(nn.Module):
    """The signature of a language model's classifier."""

    def __init__(self, width=8, classes=3):
        super().__init__()
        self.words, self.positions = nn.Embedding(11, width), nn.Embedding(7, width)
        self.blocks, self.head = nn.ModuleList(Block(width, 2) for _ in range(2)), nn.Linear(width, classes)

    def forward(self, input_ids=None, attention_mask=None, inputs_embeds=None, return_dict=True):
        if (input_ids is None) == (inputs_embeds is None):
            raise ValueError("You must specify exactly one of input_ids or inputs_embeds")
        h = self.words(input_ids) if inputs_embeds is None else inputs_embeds
        h = h + self.positions(torch.arange(h.shape[1], device=h.device))
        mask = None if attention_mask is None else attention_mask[:, None, None, :].bool()
        states = [h]
        for block in self.blocks:
            states.append(h := block(h, mask))
        logits = self.head(h[:, 0])
        return ModelOutput(logits=logits, hidden_states=tuple(states)) if return_dict else (logits, tuple(states))


class Recurrent(nn.Module):
    """An LSTM or GRU on sequences `[n, words, 3]`."""

    def __init__(self, kind):
        super().__init__()
        self.layer, self.head = kind(3, 8, batch_first=True), nn.Linear(8, 4)

    def forward(self, x):
        return self.head(self.layer(x)[0][:, -1])


class TwoInputs(nn.Module):
    """Takes images and numbers."""

    def __init__(self):
        super().__init__()
        self.images, self.numbers, self.head = nn.Linear(6, 8), nn.Linear(3, 8), nn.Linear(8, 4)

    def forward(self, x, numbers, scale=1.0):
        return self.head(torch.tanh(self.images(x)) * self.numbers(numbers) * scale)


class Twice(torch.autograd.Function):
    """An operation whose backward pass, by NumPy, cannot be done for several rows at once."""

    @staticmethod
    def forward(context, x):
        context.save_for_backward(x)
        return 2 * x.square()

    @staticmethod
    def backward(context, slope):
        (x,) = context.saved_tensors
        return torch.from_numpy(4 * x.detach().numpy() * slope.detach().numpy())


class InPlace(nn.Module):
    """Arithmetic in place, of what no backward pass needs."""

    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Linear(6, 9), nn.Linear(9, 4)

    def forward(self, x):
        x.mul_(2.0).clamp_(-3, 3)
        x[:, 0] = x[:, 1] + x[:, 2]
        h = self.first(x)
        h += 0.5
        h = functional.leaky_relu_(h, 0.1)
        h = h.tanh()
        return self.second(h).add_(h[:, :4])


class Checkpointed(nn.Module):
    def __init__(self, *, reentrant):
        super().__init__()
        self.layers, self.reentrant = mlp(nn.GELU), reentrant

    def forward(self, x):
        h = checkpoint(self.layers[:4], x, use_reentrant=self.reentrant)
        return checkpoint(self.layers[4:], h, use_reentrant=self.reentrant)


class Experts(nn.Module):
    """Each point goes through the expert that it scores highest."""

    def __init__(self):
        super().__init__()
        self.gate, self.experts = nn.Linear(6, 3), nn.ModuleList(nn.Linear(6, 4) for _ in range(3))

    def forward(self, x):
        gate = self.gate(x).softmax(1)
        chosen, outputs = gate.argmax(1), x.new_zeros(len(x), 4)
        for place, expert in enumerate(self.experts):
            rows = (chosen == place).nonzero().squeeze(1)
            outputs = outputs.index_add(0, rows, gate[rows, place].unsqueeze(1) * expert(x[rows]).tanh())
        return outputs


class Segmenter(nn.Module):
    """Logits of each pixel, `[n, 3, height, width]`, by a small U-shaped network."""

    def __init__(self):
        super().__init__()
        self.down, self.middle = nn.Conv2d(2, 4, 3, 2, 1), nn.Conv2d(4, 4, 3, padding=1)
        self.up, self.head = nn.ConvTranspose2d(4, 4, 2, 2), nn.Conv2d(6, 3, 1)

    def forward(self, x):
        h = functional.gelu(self.middle(functional.gelu(self.down(x))))
        return self.head(torch.cat([functional.interpolate(x, scale_factor=1.0), self.up(h)], 1))


Fields = namedtuple("Fields", "features logits")


@dataclass
class Outputs:
    features: torch.Tensor
    scores: torch.Tensor


def scripted(build):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        return torch.jit.script(build())


def traced(build, *shape):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return torch.jit.trace(build().eval(), torch.randn(3, *shape))


def with_compiled_parts():
    model = mlp()
    model[2] = torch.compile(model[2], backend="eager")
    return torch.compile(model, backend="aot_eager")


@dataclass(frozen=True)
class Case:
    """A model, the shape of its points, and how it is measured."""

    build: Callable[[], Any]
    shape: tuple[int, ...] = (6,)
    of: str = "probabilities"
    output: str | int | None = None
    # Further inputs of n points, and how a twin, of the model's answer, finds the outputs.
    inputs: Callable[[int], Any] | None = None
    pick: Callable[[Any], torch.Tensor] = lambda answer: answer
    # The same model in plain words, for float64.
    twin: Callable[[], Any] | None = None


MODELS = {
    "biases": Case(mlp),
    "BatchNorm1d": Case(lambda: nn.Sequential(nn.Linear(6, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 4))),
    "Dropout": Case(lambda: nn.Sequential(nn.Linear(6, 8), nn.Dropout(0.5), nn.Tanh(), nn.Linear(8, 4))),
    **{
        kind.__name__: Case(lambda kind=kind: mlp(kind))
        for kind in (
            *(nn.LeakyReLU, nn.GELU, nn.ELU, nn.SELU, nn.SiLU, nn.Hardswish, nn.PReLU, nn.Mish, nn.Softplus, nn.Tanh),
            *(nn.Sigmoid, nn.Softsign, nn.Hardtanh),
        )
    },
    "functional activations": Case(
        lambda: Function(
            lambda x, a, b, c: c(functional.dropout(torch.relu(b(functional.gelu(a(x)))), 0.5, training=False)),
            *(nn.Linear(6, 9), nn.Linear(9, 9), nn.Linear(9, 4)),
        )
    ),
    "activations in place": Case(lambda: mlp(lambda: nn.ReLU(inplace=True)), twin=mlp),
    "arithmetic in place": Case(InPlace),
    "a module reused": Case(
        lambda: Function(lambda x, a, r, h: h(r(a(r(a(r(x)))))), nn.Linear(6, 6), nn.ReLU(), nn.Linear(6, 4))
    ),
    "convolutional": Case(convolutional, (2, 8, 8)),
    "convolutional in place": Case(lambda: convolutional(inplace=True), (2, 8, 8), twin=convolutional),
    "convolutional, 1D": Case(
        lambda: nn.Sequential(nn.Conv1d(2, 4, 3), nn.InstanceNorm1d(4), nn.SiLU(), nn.Flatten(), nn.Linear(24, 4)), (2, 8)
    ),
    "ViT": Case(ViT, (3, 8, 8)),
    "MLP-mixer": Case(Mixer, (3, 8, 8)),
    "TransformerEncoder": Case(TextTransformer, (5, 8)),
    "TransformerEncoder, padded": Case(
        TextTransformer, (5, 8), inputs=lambda n: {"padding": (torch.arange(5) > 1 + torch.arange(n).unsqueeze(1) % 4)}
    ),
    "language model": Case(Bert, (5, 8), pick=lambda answer: answer["logits"]),
    "language model, masked": Case(
        Bert,
        (5, 8),
        inputs=lambda n: {"attention_mask": (torch.arange(5) <= 1 + torch.arange(n).unsqueeze(1) % 4).long()},
        pick=lambda answer: answer["logits"],
    ),
    "language model of tuples": Case(
        Bert, (5, 8), inputs=lambda n: {"return_dict": False}, output=0, pick=lambda answer: answer[0]
    ),
    "LSTM": Case(lambda: Recurrent(nn.LSTM), (4, 3)),
    "GRU": Case(lambda: Recurrent(nn.GRU), (4, 3)),
    "TorchScript, scripted": Case(lambda: scripted(convolutional), (2, 8, 8), twin=convolutional),
    "TorchScript, traced": Case(lambda: traced(convolutional, 2, 8, 8), (2, 8, 8), twin=convolutional),
    "compiled": Case(lambda: torch.compile(mlp(), backend="eager"), twin=mlp),
    "compiled parts in a compiled model": Case(with_compiled_parts, twin=mlp),
    "DataParallel": Case(lambda: nn.DataParallel(mlp()), twin=mlp),
    "exported": Case(
        lambda: torch.export.export(
            mlp().eval(), (torch.zeros(3, 6),), dynamic_shapes=({0: torch.export.Dim.DYNAMIC},), strict=False
        ),
        twin=mlp,
    ),
    "weight normalisation": Case(lambda: Function(lambda x, a, b: b(a(x).tanh()), weight_normed(6, 9), weight_normed(9, 4))),
    "spectral normalisation": Case(lambda: Function(lambda x, a, b: b(a(x).tanh()), spectral(6, 9), nn.Linear(9, 4))),
    "checkpoints": Case(lambda: Checkpointed(reentrant=False), twin=lambda: mlp(nn.GELU)),
    "an operation of NumPy": Case(lambda: Function(lambda x, a: Twice.apply(a(x)), nn.Linear(6, 4))),
    "a mixture of experts": Case(Experts),
    "two inputs by name": Case(TwoInputs, inputs=lambda n: {"numbers": torch.linspace(-1, 2, 3 * n).view(n, 3), "scale": 2.0}),
    "two inputs by place": Case(TwoInputs, inputs=lambda n: [torch.linspace(-1, 2, 3 * n).view(n, 3)]),
    "a dictionary": Case(
        lambda: Function(lambda x, a: {"features": x, "logits": a(x).tanh()}, nn.Linear(6, 4)), pick=lambda a: a["logits"]
    ),
    "a dictionary's features": Case(
        lambda: Function(lambda x, a: {"features": a(x).tanh(), "logits": x}, nn.Linear(6, 4)),
        *((6,), "logits", "features"),
        pick=lambda answer: answer["features"],
    ),
    "a tuple": Case(lambda: Function(lambda x, a: (x, a(x).tanh()), nn.Linear(6, 4)), output=1, pick=lambda answer: answer[1]),
    "a named tuple": Case(
        lambda: Function(lambda x, a: Fields(x, a(x).tanh()), nn.Linear(6, 4)), pick=lambda answer: answer.logits
    ),
    "a data class": Case(
        lambda: Function(lambda x, a: Outputs(x, a(x).tanh()), nn.Linear(6, 4)),
        output="scores",
        pick=lambda answer: answer.scores,
    ),
    "one logit [n, 1]": Case(lambda: mlp(outputs=1), of="sigmoid"),
    "one logit [n]": Case(lambda: nn.Sequential(mlp(outputs=1), nn.Flatten(0)), of="sigmoid", pick=lambda f: f.unsqueeze(1)),
    "several labels": Case(mlp, of="sigmoid"),
    "regression [n]": Case(lambda: nn.Sequential(mlp(outputs=1), nn.Flatten(0)), of="outputs", pick=lambda f: f.unsqueeze(1)),
    "regression, squeezed": Case(
        lambda: Function(lambda x, a: a(x).squeeze(), mlp(outputs=1)), of="outputs", pick=lambda f: f.view(-1, 1)
    ),
    "regression [n, 4]": Case(mlp, of="outputs"),
    "segmentation": Case(Segmenter, (2, 4, 4), of="outputs"),
    "an autoencoder": Case(lambda: mlp(nn.GELU, outputs=6), of="outputs"),
    "ends in a softmax": Case(lambda: nn.Sequential(mlp(), nn.Softmax(1)), of="outputs"),
    "ends in a log-softmax": Case(lambda: nn.Sequential(mlp(), nn.LogSoftmax(1))),
    "affine, of slopes that are one number each": Case(lambda: lambda x: torch.stack([x.sum(1), 2 * x.mean(1), -x.mean(1)], 1)),
    "linear": Case(lambda: nn.Linear(6, 4)),
    "the identity": Case(nn.Identity),
    "100 classes": Case(lambda: mlp(outputs=100)),
    "two classes": Case(lambda: mlp(outputs=2)),
}


def weight_normed(inputs, outputs):
    return nn.utils.parametrizations.weight_norm(nn.Linear(inputs, outputs))


def spectral(inputs, outputs):
    return nn.utils.parametrizations.spectral_norm(nn.Linear(inputs, outputs))


def seeded(build, seed=0, *, evaluate=True):
    """Build a model, with parameters and statistics that the seed determines, in evaluation mode unless told otherwise."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = build()
        if evaluate and isinstance(model, nn.Module):
            model.eval()
            generator = torch.Generator().manual_seed(seed + 1)
            for name, buffer in model.named_buffers():
                if name.endswith("running_mean"):
                    buffer.copy_(0.3 * torch.randn(buffer.shape, generator=generator))
                if name.endswith("running_var"):
                    buffer.copy_(0.5 + torch.rand(buffer.shape, generator=generator))
    return model


class HalfInside(nn.Module):
    """Mixed precision within the forward pass, whose outputs do not show it."""

    def __init__(self):
        super().__init__()
        self.layers = mlp()

    def forward(self, x):
        with torch.autocast("cpu", dtype=torch.bfloat16):
            return self.layers(x).float()


class Counting(nn.Module):
    """A layer that changes at each forward pass."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(6, 4)
        self.register_buffer("calls", torch.zeros(()))

    def forward(self, x):
        self.calls += 1
        return self.layer(x)


def dropped(x, a, b):
    return b(functional.dropout(a(x).relu()))


def noisy(x, a):
    return a(x + torch.from_numpy(np.random.default_rng().normal(size=x.shape)).to(x))


def half_around(model):
    return lambda x: model(x.half()).float()


CHANCE, OTHERS = "model must not depend on chance.*call model.eval", "model must treat each point alone.*call model.eval"
INEXACT = "model must compute in float32 or float64, but its .* gives {}.*pass the module of half precision itself"
# Models that are refused: what builds them, the shape of their points, what the error says, and further arguments.
REFUSED = {
    "BatchNorm without running statistics": (
        lambda: nn.Sequential(nn.Linear(6, 8), nn.BatchNorm1d(8, track_running_stats=False), nn.Linear(8, 4)).eval(),
        *((6,), OTHERS),
    ),
    "a mean over the batch": (lambda: Function(lambda x, a: a(x - x.mean(0)), nn.Linear(6, 4)), (6,), OTHERS),
    "the largest of the batch": (lambda: Function(lambda x, a: a(x / x.abs().max()), nn.Linear(6, 4)), (6,), OTHERS),
    "numbers scaled by the largest of the batch": (
        lambda: Function(lambda x, a, b: b(a(x).relu() / a(x).relu().amax()), nn.Linear(6, 9), nn.Linear(9, 4)),
        *((6,), OTHERS),
    ),
    "the first point": (lambda: Function(lambda x, a: a(x + x[:1]), nn.Linear(6, 4)), (6,), OTHERS),
    "the number of points": (lambda: Function(lambda x, a: a(x) * len(x), nn.Linear(6, 4)), (6,), OTHERS),
    "attention over the batch": (
        lambda: Function(lambda x, a: a((x @ x.T).softmax(1) @ x), nn.Linear(6, 4)),
        *((6,), OTHERS),
    ),
    "a transformer that takes the batch second": (
        lambda: nn.TransformerEncoderLayer(8, 2, 16).eval(),
        *((5, 8), OTHERS, {"of": "outputs"}),
    ),
    "F.dropout at its default": (lambda: Function(dropped, nn.Linear(6, 9), nn.Linear(9, 4)).eval(), (6,), CHANCE),
    "dropout of attention in training mode": (lambda: TextTransformer().train(), (5, 8), "in training mode: call model.eval"),
    "dropout of an LSTM in training mode": (
        lambda: Function(lambda x, a, b: b(a(x)[0][:, -1]), nn.LSTM(3, 8, 2, True, True, 0.5), nn.Linear(8, 4)).train(),
        *((4, 3), CHANCE),
    ),
    "torch's noise": (lambda: Function(lambda x, a: a(x + torch.randn_like(x)), nn.Linear(6, 4)), (6,), CHANCE),
    "NumPy's noise": (lambda: Function(noisy, nn.Linear(6, 4)), (6,), CHANCE),
    "RReLU in training mode": (lambda: nn.Sequential(nn.Linear(6, 4), nn.RReLU()).train(), (6,), "in training mode: call model"),
    "dropout in training mode": (lambda: nn.Sequential(nn.Linear(6, 4), nn.Dropout()).train(), (6,), "layer '1' is in training"),
    "BatchNorm in training mode": (lambda: convolutional().train(), (2, 8, 8), "layer '1' is in training mode: call model.eval"),
    "a lambda around BatchNorm in training mode": (
        lambda: (lambda model: lambda x: model(x))(convolutional().train()),
        *((2, 8, 8), OTHERS),
    ),
    "a lambda around dropout in training mode": (
        lambda: (lambda model: lambda x: model(x))(nn.Sequential(nn.Linear(6, 4), nn.Dropout()).train()),
        *((6,), CHANCE),
    ),
    "a script of BatchNorm in training mode": (
        lambda: scripted(lambda: nn.Sequential(nn.Linear(6, 8), nn.BatchNorm1d(8), nn.Linear(8, 4))).train(),
        *((6,), "model must not change at a forward pass, but its 1.* does: call model.eval"),
    ),
    "a script of dropout in training mode": (
        lambda: scripted(lambda: nn.Sequential(nn.Linear(6, 8), nn.Dropout(), nn.Linear(8, 4))).train(),
        *((6,), CHANCE),
    ),
    "spectral normalisation in training mode": (
        lambda: spectral(6, 4).train(),
        *((6,), r"model must not change at a forward pass, but its parametrizations.weight.0._[uv] does: call model.eval"),
    ),
    "a counter": (Counting, (6,), "model must not change at a forward pass, but its calls does"),
    "one logit's softmax": (lambda: mlp(outputs=1), (6,), "use of='sigmoid' .* or of='outputs'"),
    "[n] logits' softmax": (lambda: nn.Sequential(mlp(outputs=1), nn.Flatten(0)), (6,), "use of='sigmoid' .* or of='outputs'"),
    "a softmax's softmax": (lambda: nn.Sequential(mlp(), nn.Softmax(1)), (6,), "ends in a softmax already.*: use of='outputs'"),
    "a sigmoid's sigmoid": (
        lambda: nn.Sequential(mlp(outputs=1), nn.Sigmoid()),
        *((6,), "ends in a sigmoid already.*: use of='outputs'", {"of": "sigmoid"}),
    ),
    "segmentation's softmax": (Segmenter, (2, 4, 4), r"it gives \[n, 3, 4, 4\]: use of='outputs'"),
    "two outputs": (
        lambda: Function(lambda x, a: (x, a(x)), nn.Linear(6, 4)),
        *((6,), r"output must name one of the model's outputs: 0 \[\d+, 6\], 1 \[\d+, 4\]; got None"),
    ),
    "another output": (Bert, (5, 8), r"output must name one of .*: 'logits' \[\d+, 3\]; got 'scores'", {"output": "scores"}),
    "no tensor": (lambda: lambda x: None, (6,), "model must return a tensor, or several by name or place; it returns None"),
    "float16 outputs": (lambda: lambda x: x.half(), (6,), "model gives float16 outputs.*: pass the module itself.*model.float"),
    "a float16 model in a lambda": (lambda: half_around(mlp().half()), (6,), INEXACT.format("float16")),
    "autocast in forward": (HalfInside, (6,), INEXACT.format("bfloat16")),
    "reentrant checkpoints": (lambda: Checkpointed(reentrant=True), (6,), "no gradient passes back.*use_reentrant=False"),
    "what backward needs is overwritten": (
        lambda: Function(lambda x, a: (lambda h: (h.tanh_(), h.mul_(2.0))[1])(a(x)), nn.Linear(6, 4)),
        *((6,), "no gradient passes back through the model: one of the variables needed for gradient .* modified by an inplace"),
    ),
    "a gradient that NumPy stops": (
        lambda: lambda x: torch.from_numpy(x.detach().numpy() * 2.0),
        *((6,), "outputs do not depend on its input through autograd"),
    ),
    "rounded outputs": (lambda: Function(lambda x, a: a(x.detach()), nn.Linear(6, 4)), (6,), "expected a differentiable model"),
    "points of another shape": (mlp, (7,), r"model does not take torch.float32 points \[5, 7\]"),
    "inputs of another number": (
        TwoInputs,
        *((6,), r"inputs\['numbers'\] must have one row per point, \[5, ...\]", {"inputs": {"numbers": torch.ones(1, 3)}}),
    ),
    "inputs by place of a language model": (
        Bert,
        *((5, 8), "inputs of a model that takes inputs_embeds must be a mapping", {"inputs": [torch.ones(5, 5)]}),
    ),
    "no values": (lambda: nn.Linear(6, 4, device="meta"), (6,), "has no values: it is on the device meta"),
    "not initialised": (lambda: nn.LazyLinear(4), (6,), "is not initialised: call the model once on points first"),
}
