"""The arrays that a survey keeps for a network: takes the measures that `sensitometer.store.arrays` names."""

import math
from typing import Any

import torch
from numpy.typing import NDArray
from torch import Tensor

from ...data import Dataset
from ...errors import InvalidInputError, TooManyRegionsError
from ...measures import ExactBoundaries, boundaries, path_profile, point_values
from ...measures.loops import counting_method
from ...measures.regions.transitions import exact_crossings, path_graph, transitions
from ...networks import MLP, initial_weights, layer_shapes
from ...paths import Path, Polyline, Slice, fitted_ellipse, random_ellipse, translation
from ...randomness import generator
from ...store.arrays import TOGETHER
from ...training import Trained
from ..scheduling.cost import Measures

# Draws of three points that lie on no line: of real images all do but for copies.
TRIES = 100
# Units of the first hidden layer whose crossings of a translation loop are kept; points of the curve from vertex to vertex, and
# the number of its images.
UNITS, STEPS, IMAGES = 24, 16, 4
# Linear regions of a slice beyond which its boundaries are not kept: some minutes of work. A network of the paper's shape has a
# few millions; one of large weights that saturates on both sides may have more than any memory holds.
MOST_FACES = 10_000_000
# Points along each side of the triangle, all over which distances from boundaries are taken.
SIDE = 24


def measure_arrays(trained: Trained, dataset: Dataset, measures: Measures) -> dict[str, NDArray[Any]]:
    """Return the arrays of one network, by name; none of a network that diverged."""
    arrays: dict[str, Tensor] = {}
    if trained.state != "diverged":
        if measures.points:
            arrays |= _points(trained, dataset, measures.points)
        if measures.paths:
            arrays |= _paths(trained, dataset, measures)
        if measures.slice:
            arrays |= _slice(trained, dataset)
    return {name: values.cpu().contiguous().numpy() for name, values in arrays.items()}


def _points(trained: Trained, dataset: Dataset, count: int) -> dict[str, Tensor]:
    """Return the measures of random test points (paper, A.5.6)."""
    # The network decides, not its seed alone: a survey's conclusions about points then do not hang on one draw.
    configuration = trained.configuration
    stream = generator(configuration.seed, f"measured points of {configuration.id}")
    chosen = torch.randperm(len(dataset.test.y), generator=stream)[:count]
    device = trained.network.weights[0].device
    values = point_values(trained.network, dataset.test.x[chosen].to(device), dataset.test.y[chosen].to(device))
    kept: dict[str, Tensor] = {name: getattr(values, name) for name in TOGETHER["points"] if name != "index"}
    shortened = {f"points.{name}": value if value.is_floating_point() else value.short() for name, value in kept.items()}
    return {"points.index": chosen.int(), **shortened}


def training_anchors(dataset: Dataset, seed: int, *, alike: bool) -> Tensor:
    """
    Return the indices of the three training points of a seed's ellipses and slices, of one class or of three; int64 `[3]`.

    Raises
    ------
    InvalidInputError
        There are no three such points that are not on one line.
    """
    kind = "one class" if alike else "different classes"
    stream = generator(seed, f"anchors of {kind}")
    for _ in range(TRIES):
        order = torch.randperm(len(dataset.train.y), generator=stream)
        labels = dataset.train.y[order]
        firsts = [(labels == label).nonzero().view(-1)[:3] for label in torch.unique(labels)]
        if alike:  # the class that has three points first
            chosen = min((places for places in firsts if len(places) == 3), key=lambda places: int(places[2]), default=order[:0])
        else:  # the three classes that come first
            chosen = torch.stack([places[0] for places in firsts]).sort().values[:3]
        if len(chosen) == 3:
            try:
                fitted_ellipse(*dataset.train.x[order[chosen]])
            except InvalidInputError:  # images that are there twice
                continue
            return order[chosen]
    raise InvalidInputError(
        f"{dataset.name} must have three training points of {kind} that do not lie on one line; none were found"
    )


def _paths(trained: Trained, dataset: Dataset, measures: Measures) -> dict[str, Tensor]:
    """Return the profiles along the three kinds of ellipse (paper, A.5.2), and the crossings of a translation loop."""
    seed = trained.configuration.seed
    ellipses: dict[str, Path] = {"random": random_ellipse(dataset.train.x.shape[1], generator(seed, "random ellipse"))}
    arrays: dict[str, Tensor] = {}
    for kind in ("different", "same"):
        chosen = training_anchors(dataset, seed, alike=kind == "same")
        ellipses[kind] = fitted_ellipse(*dataset.train.x[chosen])
        arrays |= _anchors(f"paths.{kind}", dataset, chosen)
    network, bins, samples = trained.network, measures.paths, measures.transition_samples
    method = counting_method(network)
    try:
        profiles = {
            kind: path_profile(network, ellipse, bins=bins, method=method, samples=samples) for kind, ellipse in ellipses.items()
        }
    except InvalidInputError:  # weights so large that float64 cannot tell the boundaries of a unit apart
        return arrays
    for kind, profile in profiles.items():
        arrays[f"paths.{kind}.transition_density"] = profile.transition_density[0]
        arrays[f"paths.{kind}.jacobian_norm"] = profile.jacobian_norm[0]
    # Fewer shifts have no wave.
    drawn = method == "exact" and dataset.image_shape[2] > 2
    return arrays | (_translation(trained, dataset) if drawn else {})


def _anchors(name: str, dataset: Dataset, chosen: Tensor) -> dict[str, Tensor]:
    return {
        f"{name}.images": _pictures(dataset.train.x[chosen], dataset.image_shape),
        f"{name}.labels": dataset.train.y[chosen].short(),
    }


def _pictures(x: Tensor, shape: tuple[int, int, int]) -> Tensor:
    """Return points `[n, D]` as pictures, uint8 `[n, channels, height, width]`."""
    low, high = x.amin(1, keepdim=True), x.amax(1, keepdim=True)
    span = torch.where(high == low, 1.0, high - low)
    return ((x - low) / span * 255).round().to(torch.uint8).view(-1, *shape)


@torch.no_grad()
def _translation(trained: Trained, dataset: Dataset) -> dict[str, Tensor]:
    """Return a translation loop projected on a plane, and where units of the first layer cross it (paper, S3, Figure App. 7)."""
    stream = generator(trained.configuration.seed, "translated image")
    image = dataset.test.x[torch.randint(len(dataset.test.y), (1,), generator=stream)[0]].view(dataset.image_shape)
    loop, network = translation(image), trained.network
    vertices = loop.vertices.double()
    plane = _wave_plane(vertices)
    first = network.weights[0][:UNITS].cpu().double()
    graph, loops = path_graph(MLP([first, first.new_ones(1, len(first))], network.activation), [loop])
    _, crossings = exact_crossings(graph, loops, keep=True)
    places, unit = torch.from_numpy(crossings.t), torch.from_numpy(crossings.unit)
    normal = (first @ plane.T)[unit]
    length = normal.norm(dim=1, keepdim=True)
    directions = normal.flip(1) * torch.tensor([-1.0, 1.0]) / torch.where(length == 0, 1.0, length)
    shown = torch.arange(IMAGES) * len(vertices) // IMAGES
    projected = (vertices - vertices.mean(0)) @ plane.T
    return {
        "paths.translation.curve": loop.combine(projected, loop.parameters(STEPS * len(vertices))).float(),
        "paths.translation.crossings": loop.combine(projected, places).float(),
        "paths.translation.directions": directions.float(),
        "paths.translation.unit": unit.int(),
        "paths.translation.transitions": transitions(network, Polyline(loop.vertices.to(network.weights[0].device))).per_layer,
        "paths.translation.images": _pictures(loop.vertices[shown], dataset.image_shape),
        "paths.translation.places": projected[shown].float(),
    }


def _wave_plane(vertices: Tensor) -> Tensor:
    """
    Return an orthonormal basis `[2, D]` of the plane of the two strongest waves of a loop of shifts, `[M, D]`.

    The sums of the shifts with the cosines and the sines of a wave are orthogonal and equally long, and orthogonal to those of
    any other wave, since the scalar product of two shifts depends on how far they are apart alone.
    """
    spectrum = torch.fft.rfft(vertices, dim=0)[1 : (len(vertices) + 1) // 2]
    waves = torch.stack([spectrum.real, -spectrum.imag])
    lengths = waves.norm(dim=2)
    strongest = lengths[0].topk(min(2, lengths.shape[1])).indices
    basis = (waves / torch.where(lengths == 0, 1.0, lengths).unsqueeze(2))[:, strongest].sum(1)
    return basis / math.sqrt(len(strongest))


def _slice(trained: Trained, dataset: Dataset) -> dict[str, Tensor]:
    """Return the boundaries of the last hidden layer on a slice, before and after training (paper, A.5.3)."""
    configuration = trained.configuration
    chosen = training_anchors(dataset, configuration.seed, alike=False)
    plane = Slice(*dataset.train.x[chosen])
    shapes = layer_shapes(dataset.train.x.shape[1], configuration.width, configuration.depth, dataset.classes)
    name = configuration.activation
    untrained = MLP(initial_weights(shapes, name, configuration.init_scale, configuration.seed), name)
    arrays = {"slice.anchors": plane.anchors, **_anchors("slice", dataset, chosen)}
    lines: dict[str, Tensor] = {}
    for when, network in (("before", untrained), ("after", trained.network)):
        try:
            drawn = boundaries(network, plane, faces=False, most_faces=MOST_FACES)
        except (TooManyRegionsError, InvalidInputError):  # the latter of weights that are too large for float64
            return arrays
        assert isinstance(drawn, ExactBoundaries)
        lines |= {
            f"slice.{when}.segments": drawn.segments.float(),
            f"slice.{when}.distance": drawn.distance(plane.anchors),
            f"slice.{when}.anywhere": drawn.distance(_triangle(plane.anchors)).mean().view(1),
        }
    return arrays | lines


def _triangle(corners: Tensor) -> Tensor:
    """Return points evenly spread over a triangle, from its `corners` `[3, 2]`; none on its border."""
    steps = torch.arange(1, SIDE - 1, dtype=torch.float64)
    shares = torch.cartesian_prod(steps, steps) / SIDE
    shares = shares[shares.sum(1) < 1 - 0.5 / SIDE]
    return torch.cat([shares, 1 - shares.sum(1, keepdim=True)], 1) @ corners
