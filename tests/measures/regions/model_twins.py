"""
A plain twin of the exact counts of modules: forward passes in float64, with one code for each unit of each activation.

The twin shares no code with the engine and reads no graph: a `TorchFunctionMode` sees each call of an activation before torch
executes it.
"""

import copy
import itertools

import torch
from torch.nn import functional
from torch.overrides import TorchFunctionMode

from sensitometer import paths
from sensitometer.measures import transitions

# Pre-activations that are nearer to a boundary, or to one another, than this share of the activation's largest one are on it, or
# equal: where all units below are off, a sum that is 0 on paper may be 1e-17.
EQUAL = 1e-12
# The same at the places of transitions, which are themselves rounded.
EQUAL_AT_PLACES = 1e-8
# Positions that are nearer than this share of the path are one place.
PLACE = 1e-7

POOLS = {
    functional.max_pool1d: 1,
    functional.max_pool2d: 2,
    functional.max_pool3d: 3,
    torch.max_pool1d: 1,
    torch.max_pool2d: 2,
    torch.max_pool3d: 3,
}
ADAPTIVE = {
    functional.adaptive_max_pool1d: 1,
    functional.adaptive_max_pool2d: 2,
    functional.adaptive_max_pool3d: 3,
    torch.adaptive_max_pool1d: 1,
}


def _limits(*limits, **named):
    return sorted(float(limit) for limit in (*limits, *named.values()) if limit is not None)


# By the name of the function: the boundaries, from the arguments that follow the pre-activations.
ELEMENTWISE = {
    "relu": lambda inplace=False: [0.0],
    "relu_": lambda: [0.0],
    "relu6": lambda inplace=False: [0.0, 6.0],
    "leaky_relu": lambda negative_slope=0.01, inplace=False: [0.0],
    "prelu": lambda weight: [0.0],
    "rrelu": lambda *arguments, **more: [0.0],
    "abs": lambda: [0.0],
    "hardtanh": lambda min_val=-1.0, max_val=1.0, inplace=False: [min_val, max_val],
    "hardsigmoid": lambda inplace=False: [-3.0, 3.0],
    "_threshold": lambda threshold, value, inplace=False: [threshold],
    **dict.fromkeys(("clamp", "clamp_", "clamp_min", "clamp_max"), _limits),
}


def windows(size, out, kernel, stride, padding, dilation):
    """The places of each window of max-pooling along one dimension."""
    starts = (place * stride - padding for place in range(out))
    return [[at for at in range(start, start + kernel * dilation, dilation) if 0 <= at < size] for start in starts]


def adaptive_windows(size, out):
    """The same for adaptive pooling: from floor(i size / out) to before ceil((i + 1) size / out)."""
    return [list(range(place * size // out, -(-(place + 1) * size // out))) for place in range(out)]


def winners(z, tolerance):
    """The first of the largest numbers in the last dimension, up to the tolerance."""
    return (z >= z.amax(-1, keepdim=True) - tolerance).to(torch.int8).argmax(-1)


def flat(codes):
    """Codes `[n, units]`, also of an activation that has one unit and no dimension for it."""
    return codes.reshape(len(codes), -1)


class Codes(TorchFunctionMode):
    """
    Collects the codes `[n, units]` of each activation of the points, as the model calls them.

    `kinds` says for each activation whether its codes count boundaries or name a winner. Activations of values that are not
    `n` long, such as weights, are left out.
    """

    def __init__(self, equal, n):
        super().__init__()
        self.equal, self.n, self.codes, self.kinds = equal, n, [], []

    def __torch_function__(self, function, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        name = getattr(function, "__name__", "")
        z = args[0] if args and isinstance(args[0], torch.Tensor) and args[0].is_floating_point() else None
        several = len(args) > 1 and isinstance(args[1], torch.Tensor)
        if z is None or self.n not in z.shape:
            return function(*args, **kwargs)
        if name in ("maximum", "minimum") or (name in ("max", "min") and several):
            self.count(z - args[1], [0.0])
        elif name in ELEMENTWISE:
            self.count(z, ELEMENTWISE[name](*args[1:], **kwargs))
        elif name in ("amax", "amin", "max", "min"):
            dims = kwargs.get("dim", args[1] if len(args) > 1 else tuple(range(z.ndim)))
            self.choose(z if name.endswith("max") else -z, (dims,) if isinstance(dims, int) else tuple(dims))
        elif function in POOLS or function in ADAPTIVE:
            return self.pool(function, z, args, kwargs)
        return function(*args, **kwargs)

    def near(self, z):
        return self.equal * float(z.abs().max()) if z.numel() else 0.0

    def count(self, z, boundaries):
        near = self.near(z)
        self.codes.append(sum((z > boundary + near).long() for boundary in boundaries))
        self.kinds.append("boundaries")

    def choose(self, z, dims):
        dims = [dim % z.ndim for dim in dims]
        candidates = z.movedim(dims, list(range(-len(dims), 0))).flatten(-len(dims))
        self.codes.append(winners(candidates, self.near(z)))
        self.kinds.append("winners")

    def pool(self, function, z, args, kwargs):
        """Write out all windows, and check that the largest number in each is what torch returns."""
        pooled = function(*args, **kwargs)
        out = pooled if isinstance(pooled, torch.Tensor) else pooled[0]
        n = POOLS.get(function) or ADAPTIVE[function]
        sizes, outs = z.shape[-n:], out.shape[-n:]
        if function in ADAPTIVE:
            along = [adaptive_windows(size, count) for size, count in zip(sizes, outs, strict=True)]
        else:
            given = dict(zip(("kernel_size", "stride", "padding", "dilation", "ceil_mode"), args[1:], strict=False)) | kwargs
            given["stride"] = given.get("stride") or given["kernel_size"]
            each = []
            for key, default in (("kernel_size", None), ("stride", None), ("padding", 0), ("dilation", 1)):
                value = given.get(key, default)
                each.append([value] * n if isinstance(value, int) else list(value))
            along = [windows(*numbers) for numbers in zip(sizes, outs, *each, strict=True)]
        codes = []
        for window in itertools.product(*along):
            there = list(itertools.product(*window))
            candidates = torch.stack([z[(..., *place)] for place in there], -1)
            numbers = torch.tensor([sum(p * 1000**k for k, p in enumerate(place)) for place in there])
            codes.append(numbers[winners(candidates, self.near(z))])
            torch.testing.assert_close(candidates.amax(-1), out.flatten(-n)[..., len(codes) - 1], rtol=0, atol=0)
        self.codes.append(torch.stack(codes, -1))
        self.kinds.append("winners")
        return pooled


@torch.no_grad()
def module_codes(module, points, *, together=True, equal=EQUAL):
    """
    The codes `[n, units]` of each activation at points `[n, ...]`, and their kinds, in float64.

    `together=False` passes one point at a time, for modules that move the points to another dimension.
    """
    twin = copy.deepcopy(module).double()
    parts = []
    for part in points.double().split(len(points) if together else 1):
        with Codes(equal, len(part)) as collected:
            twin(part.clone())
        parts.append([flat(codes) if together else codes.reshape(1, -1) for codes in collected.codes])
    return [torch.cat(codes) for codes in zip(*parts, strict=True)], collected.kinds


def changes(before, after, kind):
    """The transitions of an activation from codes `[n, units]` to others; int64 `[n]`."""
    return ((after - before).abs() if kind == "boundaries" else (after != before).long()).sum(1)


def doubled(path):
    """The path in float64: its points are then where the engine takes them to be."""
    if isinstance(path, paths.Polyline):
        return paths.Polyline(path.vertices.double(), path.closed)
    return paths.Ellipse(path.centre.double(), path.u.double(), path.v.double())


def sampled(module, path, samples, *, together=True):
    """The transitions of each activation between neighbours of so many evenly spaced points."""
    codes, kinds = module_codes(module, doubled(path).points(path.parameters(samples)), together=together)
    ring = [torch.cat([code, code[:1]]) if path.closed else code for code in codes]
    return [int(changes(code[:-1], code[1:], kind).sum()) for code, kind in zip(ring, kinds, strict=True)]


def pieces(path, positions):
    """Where the pieces of a path begin and end that no transition of any activation divides, and the ends of all of them."""
    # Vertices are ends, too: there a unit may touch its boundary, which makes two transitions from above, and none from below.
    straight = isinstance(path, paths.Polyline)
    corners = torch.arange(path.span + 1) if straight else torch.tensor([0.0, path.span], dtype=torch.float64)
    ends = torch.cat([corners, *positions]).double().sort().values
    wide = ends.diff() > PLACE * path.span
    return ends[:-1][wide], ends[1:][wide], ends


def unexplained(module, path, positions, *, together=True):
    """
    Return the activations, places of the path and transitions that the codes do not show; `[]` if they show all.

    The codes are those on the pieces of the path, between all positions, and at the places between the pieces; `positions` holds
    the positions of each activation, sorted. Codes that change inside a piece fail.
    """
    path = doubled(path)
    begins, stops, ends = pieces(path, positions)
    inside = torch.cat([begins + (stops - begins) * share for share in (0.3, 0.7)])
    places = torch.cat([ends[:1], (stops[:-1] + begins[1:]) / 2, ends[-1:]])
    points = path.points(torch.cat([inside, places]))
    between, kinds = module_codes(module, points, together=together)
    there, _ = module_codes(module, points, together=together, equal=EQUAL_AT_PLACES)
    assert len(between) == len(positions), f"{len(between)} activations are called, {len(positions)} were read"
    wrong = []
    for number, (codes, at, kind, mine) in enumerate(zip(between, there, kinds, positions, strict=True)):
        first, later, at = codes[: len(begins)], codes[len(begins) : len(inside)], at[len(inside) :]
        same = (first == later).all(1)
        assert same.all(), f"codes of activation {number} change inside the piece behind {begins[~same][:3].tolist()}"
        found = torch.bincount(torch.searchsorted((begins + stops) / 2, mine.double()), minlength=len(places))
        into, out_of = changes(first, at[1:], kind), changes(at[:-1], first, kind)
        expected = [functional.pad(into, (1, 0)) + functional.pad(out_of, (0, 1))]
        if kind == "winners":
            # It is left open whether a candidate counts that is one of the largest at the place alone.
            expected.append(functional.pad(changes(first[:-1], first[1:], kind), (1, 1)))
            expected[1][0] = changes(first[-1:], first[:1], kind) if path.closed else out_of[0]
            expected[1][-1] = 0 if path.closed else into[-1]
        if path.closed:
            # The end of a loop is its beginning.
            expected[0][0] += expected[0][-1]
            found[0] += found[-1]
            found[-1] = expected[0][-1] = 0
        right = torch.stack([found == count for count in expected]).any(0)
        wrong += [(number, float(place), int(found[k])) for k, place in enumerate(places) if not right[k]]
    return wrong


def counts(model, path):
    """The transitions of each activation, in a list."""
    return transitions(model, path).per_layer.tolist()


def check(model, *several, together=True):
    """Check the positions and counts along paths against the codes."""
    found = transitions(model, several, positions=True)
    assert torch.equal(transitions(model, several).per_layer, found.per_layer)
    for path, per_layer, positions in zip(several, found.per_layer, found.positions, strict=True):
        assert [len(layer) for layer in positions] == per_layer.tolist()
        assert unexplained(model, path, positions, together=together) == []
