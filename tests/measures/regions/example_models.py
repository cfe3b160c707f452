"""Modules of every kind that the exact counts read, and the paths on which they are counted."""

import math

import torch
from torch import nn
from torch.nn import functional

from sensitometer import paths

ACTIVATIONS = {"relu": nn.ReLU, "relu6": nn.ReLU6, "hardtanh": nn.Hardtanh}


class Function(nn.Module):
    """A forward pass `function(x, *modules)`; further tensors and numbers become attributes."""

    def __init__(self, function, *modules, **attributes):
        super().__init__()
        self.function, self.parts = function, nn.ModuleList(modules)
        for name, value in attributes.items():
            setattr(self, name, value)

    def forward(self, x):
        given = [value for name, value in vars(self).items() if name in ("constant", "number")]
        return self.function(x, *self.parts, *self.parameters(recurse=False), *given)


def seeded(build, seed=0):
    """Build a module with parameters that the seed determines."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return build().eval()


def normals(*shape, seed=1, scale=2.0):
    return scale * torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def three_paths(*shape, seed=1, scale=2.0):
    """A loop, an open line and an ellipse."""
    vertices = normals(4, *shape, seed=seed, scale=scale)
    return [paths.Polyline(vertices), paths.Polyline(vertices[1:], closed=False), paths.Ellipse(*vertices[:3])]


def line(*numbers):
    """An open line through points of one dimension."""
    return paths.Polyline(torch.tensor(numbers).unsqueeze(1), closed=False)


def sequential(network):
    """A network of the package as torch modules."""
    layers = []
    for weight in network.weights:
        layer = nn.Linear(weight.shape[1], weight.shape[0], bias=False, dtype=weight.dtype)
        layer.weight.data.copy_(weight)
        layers += [layer, ACTIVATIONS[network.activation]()]
    return nn.Sequential(*layers[:-1])


# --- operations, to be put one after another


def batch_norm(norm):
    """Give a normalisation random statistics, scales and shifts."""
    with torch.no_grad():
        norm.running_mean.normal_()
        norm.running_var.uniform_(0.3, 2)
        norm.weight.normal_()
        norm.bias.normal_()
    return norm


def prelu(channels):
    activation = nn.PReLU(channels)
    activation.weight.data.uniform_(-0.5, 1.5)
    return activation


ANY_SHAPE = {
    "relu": lambda: nn.ReLU(),
    "relu in place": lambda: Function(lambda x: (x + 0.1).relu_()),
    "relu6": lambda: nn.ReLU6(),
    "leaky": lambda: nn.LeakyReLU(0.01),
    "leaky, falling": lambda: nn.LeakyReLU(-0.5),
    "leaky, steeper below": lambda: nn.LeakyReLU(1.5),
    "hardtanh": lambda: nn.Hardtanh(-0.3, 0.7),
    "clamp from below": lambda: Function(lambda x: x.clamp(min=-0.2)),
    "clamp from above": lambda: Function(lambda x: torch.clamp(x, max=0.4)),
    "hardsigmoid": lambda: nn.Hardsigmoid(),
    "abs": lambda: Function(torch.abs),
    "threshold": lambda: nn.Threshold(0.1, 0.1),
    "scale": lambda: Function(lambda x: 1.5 * x / 0.7 - 0.25),
    "dropout": lambda: nn.Dropout(),
}
# From the channels, height and width of the points.
OF_IMAGES = {
    "convolution": lambda C, H, W: nn.Conv2d(C, 3, 2),
    "padded convolution": lambda C, H, W: nn.Conv2d(C, 2, 3, padding=1, bias=False),
    "convolution and normalisation": lambda C, H, W: nn.Sequential(nn.Conv2d(C, C, 3, padding=1), batch_norm(nn.BatchNorm2d(C))),
    "convolution in steps": lambda C, H, W: nn.Conv2d(C, 4, 2, stride=2, padding=1),
    "dilated convolution": lambda C, H, W: nn.Conv2d(C, 3, 2, dilation=2),
    "convolution in groups": lambda C, H, W: nn.Conv2d(C, 2 * C, (1, 2), groups=C),
    "transposed convolution": lambda C, H, W: nn.ConvTranspose2d(C, 2, 3, stride=2, padding=1, output_padding=1),
    "normalisation": lambda C, H, W: batch_norm(nn.BatchNorm2d(C)),
    "prelu": lambda C, H, W: prelu(C),
    "maximum of two": lambda C, H, W: Function(lambda x, a, b: torch.maximum(a(x), b(x)), nn.Conv2d(C, 2, 1), nn.Conv2d(C, 2, 1)),
    "minimum of two": lambda C, H, W: Function(lambda x, a: torch.minimum(a(x), x), nn.Conv2d(C, C, 1)),
    "max-pooling": lambda C, H, W: nn.MaxPool2d(2),
    "padded max-pooling": lambda C, H, W: nn.MaxPool2d(3, stride=2, padding=1, ceil_mode=True),
    "dense max-pooling": lambda C, H, W: nn.MaxPool2d((3, 2), stride=1, padding=(1, 0)),
    "adaptive max-pooling": lambda C, H, W: nn.AdaptiveMaxPool2d((2, max(1, W - 1))),
    "largest channel": lambda C, H, W: Function(lambda x: x.amax(1, keepdim=True)),
    "largest pixel": lambda C, H, W: Function(lambda x: x - x.amax((2, 3), keepdim=True)),
    "average pooling": lambda C, H, W: nn.AvgPool2d(2, stride=1, padding=1),
    "adaptive average pooling": lambda C, H, W: nn.AdaptiveAvgPool2d((2, max(1, W - 1))),
    "residual": lambda C, H, W: Function(lambda x, a: x + functional.relu(a(x)), nn.Conv2d(C, C, 3, padding=1)),
    "concatenation": lambda C, H, W: Function(lambda x, a: torch.cat([a(x), x.relu()[:, :1]], 1), nn.Conv2d(C, 1, 1)),
    "slice and pad": lambda C, H, W: Function(lambda x: functional.pad(x[..., 1:], (1, 1, 0, 1), value=0.3)),
    "reshape": lambda C, H, W: Function(lambda x: x.reshape(x.shape[0], C, W, H)),
    "permutation": lambda C, H, W: Function(lambda x: x.permute(0, 1, 3, 2)),
    "channels last": lambda C, H, W: Function(lambda x, a: a(x.permute(0, 2, 3, 1)).relu().permute(0, 3, 1, 2), nn.Linear(C, 2)),
    "shift and mirror": lambda C, H, W: Function(lambda x: x.flip(-1) + x.roll(1, 2)),
    "nearest": lambda C, H, W: nn.Upsample(scale_factor=2),
    "bilinear": lambda C, H, W: nn.Upsample(size=(H + 1, W + 2), mode="bilinear"),
    "called twice": lambda C, H, W: Function(lambda x, a, relu: relu(a(relu(a(x)))), nn.Conv2d(C, C, 1), nn.ReLU()),
}
OF_VECTORS = {
    "linear": lambda D: nn.Linear(D, 4),
    "wider": lambda D: nn.Linear(D, 6, bias=False),
    "narrow": lambda D: nn.Linear(D, 1),
    "normalisation": lambda D: batch_norm(nn.BatchNorm1d(D)),
    "prelu": lambda D: prelu(D),
    "residual": lambda D: Function(lambda x, a: x + a(x).relu(), nn.Linear(D, D)),
    "maximum of two": lambda D: Function(lambda x, a: torch.max(a(x), -x), nn.Linear(D, D)),
    "largest of pairs": lambda D: Function(lambda x, a: a(x).view(-1, 3, 2).amax(2), nn.Linear(D, 6)),
    "called twice": lambda D: Function(lambda x, a: a(a(x).relu()).relu(), nn.Linear(D, D)),
}
MOST_NUMBERS = 120


def stacked(shape, names, tail, seed):
    """A module of the named blocks, where they fit, for points of a shape; parameters depend on the seed."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        blocks, x = [], torch.zeros(2, *shape)
        for name in [*names, "flatten", *tail]:
            if name == "flatten":
                block = nn.Flatten()
            elif name in ANY_SHAPE:
                block = ANY_SHAPE[name]()
            else:
                block = (OF_IMAGES if x.ndim == 4 else OF_VECTORS)[name](*x.shape[1:])
            try:
                with torch.no_grad():
                    result = block.eval()(x.clone())
            except RuntimeError:  # such as a kernel that is larger than the image
                continue
            if 0 < result[0].numel() <= MOST_NUMBERS:
                blocks.append(block)
                x = result
    return nn.Sequential(*blocks).eval()


# --- operations one by one

ONE = nn.Parameter(torch.tensor([0.4, -0.7, 0.2]))
# Name: the shape of the points, the model, the names of its activations.
OPERATIONS = {
    "functions": ((3,), lambda: Function(lambda x, a: functional.relu(a(x)) - x.sum(1, keepdim=True), nn.Linear(3, 4)), ["relu"]),
    "convolution of sequences": (
        (2, 9),
        lambda: nn.Sequential(nn.Conv1d(2, 3, 3, 2, 2, 2), nn.ReLU6(), nn.MaxPool1d(2)),
        ["1", "2"],
    ),
    "convolution of volumes": (
        (1, 3, 3, 3),
        lambda: nn.Sequential(nn.Conv3d(1, 2, 2), nn.ReLU(), nn.MaxPool3d(2, 1)),
        ["1", "2"],
    ),
    "circular padding": (
        (1, 3, 3),
        lambda: nn.Sequential(nn.Conv2d(1, 2, 3, padding=1, padding_mode="circular"), nn.ReLU()),
        ["1"],
    ),
    "padding that keeps the size": ((1, 4, 4), lambda: nn.Sequential(nn.Conv2d(1, 2, 3, padding="same"), nn.ReLU()), ["1"]),
    "convolution of one pixel": (
        (1, 1, 1),
        lambda: nn.Sequential(nn.Conv2d(1, 2, 3, padding=1), nn.ReLU(), nn.Conv2d(2, 2, 3, padding=1), nn.ReLU()),
        ["1", "3"],
    ),
    "convolution with and without normalisation": (
        (2, 3, 3),
        lambda: Function(
            lambda x, a, b: (lambda h: torch.cat([b(h), h], 1).relu())(a(x)),
            nn.Conv2d(2, 3, 3, padding=1),
            batch_norm(nn.BatchNorm2d(3)),
        ),
        ["relu"],
    ),
    "normalisation of normalisation": (
        (2, 3, 3),
        lambda: nn.Sequential(
            nn.Conv2d(2, 4, 3, padding=1, groups=2), batch_norm(nn.BatchNorm2d(4)), batch_norm(nn.BatchNorm2d(4)), nn.ReLU()
        ),
        ["3"],
    ),
    "grouped and transposed": (
        (2, 3, 3),
        lambda: nn.Sequential(
            nn.ConvTranspose2d(2, 4, 2, 2, 1, groups=2, dilation=2),
            nn.LeakyReLU(-0.5),
            nn.Conv2d(4, 2, 2, groups=2),
            nn.Hardtanh(),
        ),
        ["1", "3"],
    ),
    "strange max-pooling": ((1, 5, 5), lambda: nn.MaxPool2d((3, 2), (2, 1), (1, 1), (1, 2), ceil_mode=True), ["max_pool2d"]),
    "adaptive max-pooling": ((2, 5, 4), lambda: nn.Sequential(nn.AdaptiveMaxPool2d((None, 2)), nn.ReLU()), ["0", "1"]),
    "adaptive max-pooling of sequences": ((2, 7), lambda: nn.AdaptiveMaxPool1d(3), ["adaptive_max_pool1d"]),
    "pooling without channels": ((4, 4), lambda: Function(lambda x: functional.max_pool2d(x, 2)), ["max_pool2d"]),
    "maxout": ((4,), lambda: Function(lambda x, a: a(x).view(-1, 3, 2).amax(-1), nn.Linear(4, 6)), ["amax"]),
    "values of the largest and smallest": (
        (3, 4),
        lambda: Function(lambda x: x.max(-1)[0] - x.min(dim=1).values.sum(1, keepdim=True)),
        ["max", "min"],
    ),
    "range": ((3, 4), lambda: Function(lambda x: torch.amax(x, (1, 2)).unsqueeze(1) - torch.amin(x, 2)), ["amax", "amin"]),
    "one number for each point": ((3,), lambda: Function(lambda x: x.amax(1)), ["amax"]),
    "maximum with parameters": ((3,), lambda: Function(torch.maximum, constant=ONE), ["maximum"]),
    "maximum with itself": ((3,), lambda: Function(lambda x: torch.maximum(x, x)), ["maximum"]),
    "maximum that broadcasts": (
        (3,),
        lambda: Function(lambda x, a: torch.maximum(a(x).unsqueeze(2), x.unsqueeze(1)), nn.Linear(3, 2)),
        ["maximum"],
    ),
    "clamp by whole numbers": ((3,), lambda: Function(lambda x: x.clamp(max=1, min=0)), ["clamp"]),
    "clamp with one infinite limit": ((3,), lambda: nn.Hardtanh(-1.0, math.inf), ["hardtanh"]),
    "methods in place": (
        (4,),
        lambda: Function(lambda x, a: a(x).relu_().add_(x).clamp_(-0.5, 0.5), nn.Linear(4, 4)),
        ["relu", "clamp"],
    ),
    "slopes that do not change": (
        (3,),
        lambda: nn.Sequential(nn.Linear(3, 4), nn.LeakyReLU(1.0), nn.Linear(4, 2), nn.ReLU()),
        ["1", "3"],
    ),
    "one slope of all": ((3,), lambda: nn.Sequential(nn.Linear(3, 4), nn.PReLU()), ["1"]),
    "slopes by channel": ((3, 2, 2), lambda: prelu(3), ["prelu"]),
    "random slopes in evaluation": ((3,), lambda: nn.Sequential(nn.Linear(3, 4), nn.RReLU()), ["1"]),
    "absolute values": ((4,), lambda: Function(lambda x, a: abs(a(x)) + torch.abs(x[:, :1]), nn.Linear(4, 5)), ["abs", "abs"]),
    "everything alive": (
        (3,),
        lambda: Function(
            lambda x, a, b, c: (lambda f, g: f[:, :2] + g[:, :2] - c(g).relu() + x[:, :2])(f := a(x).relu(), b(f).relu()),
            nn.Linear(3, 4),
            nn.Linear(4, 5),
            nn.Linear(5, 2),
        ),
        ["relu"] * 3,
    ),
    "einsum": ((3,), lambda: Function(lambda x, w: torch.einsum("ni,oi->no", x, w.diag()).relu(), constant=ONE), ["relu"]),
    "product from the left": ((3, 2), lambda: Function(lambda x, w: (w.diag() @ x).relu(), constant=ONE), ["relu"]),
    "split and joined": (
        (4,),
        lambda: Function(lambda x, a: torch.stack([part.relu() for part in a(x).chunk(3, 1)], 2), nn.Linear(4, 6)),
        ["relu"] * 3,
    ),
    "indices": ((3,), lambda: Function(lambda x: x[:, [0, 2, 2]].relu()), ["relu"]),
    "channels last in memory": (
        (3, 4, 4),
        lambda: nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten()).to(memory_format=torch.channels_last),
        ["1", "2"],
    ),
    "made channels last": (
        (3, 4, 4),
        lambda: Function(lambda x, a: a(x.to(memory_format=torch.channels_last)).relu().flatten(1), nn.Conv2d(3, 4, 3)),
        ["relu"],
    ),
    "pixels rearranged": ((4, 2, 2), lambda: nn.Sequential(nn.PixelShuffle(2), nn.ReLU(), nn.PixelUnshuffle(2)), ["1"]),
    "patches": ((1, 4, 4), lambda: nn.Sequential(nn.Unfold(2), nn.ReLU(), nn.Fold((4, 4), 2)), ["1"]),
    "bicubic": ((1, 3, 3), lambda: nn.Sequential(nn.Upsample(scale_factor=2, mode="bicubic"), nn.ReLU()), ["1"]),
    "one unit": ((1,), lambda: nn.Sequential(nn.Linear(1, 1), nn.ReLU(), nn.Linear(1, 1), nn.ReLU()), ["1", "3"]),
    "one pixel": (
        (1, 1, 1),
        lambda: nn.Sequential(nn.Conv2d(1, 1, 1), nn.ReLU(), nn.MaxPool2d(1), nn.AdaptiveAvgPool2d(1)),
        ["1", "2"],
    ),
    "parametrised weights": (
        (3,),
        lambda: nn.Sequential(nn.utils.parametrizations.weight_norm(nn.Linear(3, 4)), nn.ReLU()),
        ["1"],
    ),
    "an activation of weights": (
        (3,),
        lambda: Function(lambda x, w: (x * w.abs()).relu() - w.relu() - w.max(), constant=ONE),
        ["relu"],
    ),
    "shared weights": (
        (3,),
        lambda: Function(lambda x, a: functional.linear(a(x).relu(), a.weight.T).relu(), nn.Linear(3, 4)),
        ["relu"] * 2,
    ),
    "normalisation without scales": ((3, 2, 2), lambda: nn.Sequential(nn.BatchNorm2d(3, affine=False), nn.ReLU()), ["1"]),
    "types inside": ((3,), lambda: Function(lambda x, a: a(x).double().relu().half().float(), nn.Linear(3, 4)), ["relu"]),
    "detached": ((3,), lambda: Function(lambda x: x.detach().relu()), ["relu"]),
    "no activation": ((3,), lambda: nn.Linear(3, 2), []),
    "the identity": ((3,), nn.Identity, []),
    "0 everywhere": ((3,), lambda: Function(lambda x: 0 * x), []),
    "units that are always off": (
        (3,),
        lambda: nn.Sequential(nn.Linear(3, 4), Function(lambda x: x - 100), nn.ReLU(), nn.Linear(4, 3, bias=False), nn.ReLU()),
        ["2", "4"],
    ),
    "0 on paper": (
        (3,),
        lambda: Function(lambda x: (x.relu() + (-x).relu() - x.abs()).relu()),
        ["relu", "relu", "abs", "relu"],
    ),
    "pooled zeros": (
        (1, 4, 4),
        lambda: nn.Sequential(
            nn.Conv2d(1, 2, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(8, 3), nn.ReLU()
        ),
        ["1", "2", "5"],
    ),
    "pooled limits": (
        (1, 4, 4),
        lambda: nn.Sequential(nn.Hardtanh(-0.1, 0.1), nn.MaxPool2d(3, 1, 1), nn.Hardtanh(-0.1, 0.1)),
        ["0", "1", "2"],
    ),
}

# Modules that move the points away from the first dimension.
MOVED = {
    "relu": ((3, 4), lambda: Function(lambda x, a: a(x).permute(1, 0, 2).relu().permute(1, 0, 2), nn.Linear(4, 5))),
    "hardtanh": ((4,), lambda: Function(lambda x, a: functional.hardtanh(a(x).t()).t(), nn.Linear(4, 5))),
    "amax": ((3, 4), lambda: Function(lambda x, a: a(x).permute(1, 2, 0).amax(0).t(), nn.Linear(4, 5))),
    "maximum": (
        (3, 4),
        lambda: Function(lambda x: torch.maximum(x.permute(1, 2, 0), -0.5 * x[:, :1].permute(1, 2, 0)).permute(2, 0, 1)),
    ),
    "product": ((3,), lambda: Function(lambda x, w: (w.diag() @ x.T).T.relu(), constant=ONE)),
    "output": ((3,), lambda: Function(lambda x: x.relu().T)),
}

# Candidates of a maximum that are equal where they are overtaken.
TIES = {
    "pooling of pooling": ((1, 6, 6), lambda: nn.Sequential(nn.MaxPool2d(3, 1, 1), nn.MaxPool2d(3, 1, 1), nn.MaxPool2d(2))),
    "pooling of bilinear pixels": ((1, 2, 2), lambda: nn.Sequential(nn.Upsample(size=(4, 4), mode="bilinear"), nn.MaxPool2d(4))),
    "pooling of aligned pixels": (
        (1, 2, 2),
        lambda: nn.Sequential(nn.Upsample(size=(5, 5), mode="bilinear", align_corners=True), nn.MaxPool2d(3, 1)),
    ),
    "pooling of a transposed convolution": (
        (1, 3, 3),
        lambda: nn.Sequential(nn.ConvTranspose2d(1, 2, 2, stride=2), nn.MaxPool2d(2, 1)),
    ),
    "pooling of padding": ((1, 3, 3), lambda: nn.Sequential(nn.Conv2d(1, 2, 2, padding=2), nn.MaxPool2d(3, 1))),
    "equal up to rounding": (
        (2,),
        lambda: Function(lambda x: torch.stack([3 * x[:, 0], x[:, 0] + x[:, 0] + x[:, 0], x[:, 1]], 1).amax(1, keepdim=True)),
    ),
}


# --- whole networks


class Block(nn.Module):
    """A residual block; `relu` is a module, and its last activation a function."""

    def __init__(self, width):
        super().__init__()
        self.first, self.relu, self.second = nn.Linear(width, width), nn.ReLU(), nn.Linear(width, width)

    def forward(self, x):
        return functional.relu(x + self.second(self.relu(self.first(x))))


class Residual(nn.Module):
    """Two blocks, a max-pooling and a clamp."""

    def __init__(self):
        super().__init__()
        self.stem, self.layer1, self.pool, self.head = nn.Linear(3, 6), Block(6), nn.MaxPool1d(2), nn.Linear(3, 2)
        self.layers = nn.Sequential(Block(6), nn.PReLU(6))
        self.limit = 0.9

    def forward(self, x):
        x = self.layers(self.layer1(self.stem(x)))
        return self.head(self.pool(x)).clamp(max=self.limit)


RESIDUAL_NAMES = ("layer1.relu", "layer1:relu", "layers.0.relu", "layers.0:relu", "layers.1", "pool", "clamp")


class BasicBlock(nn.Module):
    """Two convolutions and a shortcut, which skips pixels and pads channels where the size changes (option A)."""

    def __init__(self, channels, more, stride):
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(channels, more, 3, stride, 1, bias=False), nn.BatchNorm2d(more)
        self.conv2, self.bn2 = nn.Conv2d(more, more, 3, 1, 1, bias=False), nn.BatchNorm2d(more)
        self.stride, self.padding = stride, (more - channels) // 2

    def forward(self, x):
        h = self.bn2(self.conv2(functional.relu(self.bn1(self.conv1(x)))))
        if self.stride > 1:
            x = functional.pad(x[:, :, :: self.stride, :: self.stride], (0, 0, 0, 0, self.padding, self.padding))
        return functional.relu(h + x)


class ResNet20(nn.Module):
    """He et al. 2016, section 4.2, of pixels in [0, 1]."""

    def __init__(self):
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(3, 16, 3, 1, 1, bias=False), nn.BatchNorm2d(16)
        for stage, channels, more in ((1, 16, 16), (2, 16, 32), (3, 32, 64)):
            first = BasicBlock(channels, more, 1 if stage == 1 else 2)
            setattr(self, f"layer{stage}", nn.Sequential(first, BasicBlock(more, more, 1), BasicBlock(more, more, 1)))
        self.linear = nn.Linear(64, 10)

    def forward(self, x):
        mean, deviation = x.new_tensor([0.485, 0.456, 0.406]), x.new_tensor([0.229, 0.224, 0.225])
        x = (x - mean.view(3, 1, 1)) / deviation.view(3, 1, 1)
        x = functional.relu(self.bn1(self.conv1(x)))
        return self.linear(self.layer3(self.layer2(self.layer1(x))).mean((2, 3)))


RESNET_NAMES = ["relu", *(f"layer{stage}.{block}:relu" for stage in (1, 2, 3) for block in (0, 1, 2) for _ in range(2))]
