"""
The slow twin of the exact boundaries on a slice, in plain Python floats.

Each face carries, for each unit, the affine function of the coordinates that its activation is there, and is clipped by one
boundary of one unit after the other: no vertex is shared, nothing is interpolated from corners.
"""

import itertools
import math

# Boundaries as (low, high), and what is added to the clipped pre-activation.
PIECES = {"relu": (0.0, math.inf, 0.0), "relu6": (0.0, 6.0, 0.0), "hardtanh": (-1.0, 1.0, 0.0), "hardsigmoid": (-0.5, 0.5, 0.5)}
SQUARE = [(-1.0, -1.0), (1.0, -1.0), (1.0, 1.0), (-1.0, 1.0)]
# A face that a line cuts off less of than this, in the line's values relative to those at the face's corners, is not cut.
THIN = 1e-11
SLIVER = 1e-13  # an area
# Where three lines meet, rounding leaves two corners.
SHORT = 1e-9
# How far behind a side of a face it is asked what is there.
BEHIND = 1e-7


def levels_of(activation):
    low, high, _ = PIECES[activation]
    return [level for level in (low, high) if level < math.inf]


def at(function, point):
    return function[0] + function[1] * point[0] + function[2] * point[1]


def times(weight, functions):
    """The affine functions of the next layer: `weight` is rows of floats."""
    return [tuple(sum(w * f[k] for w, f in zip(row, functions, strict=True)) for k in range(3)) for row in weight]


def clip(polygon, function, level, sign):
    """The part of a polygon on one side of function = level, and the points where its rim crosses."""
    values = [sign * (at(function, point) - level) for point in polygon]
    part, crossings = [], []
    for i, (point, value) in enumerate(zip(polygon, values, strict=True)):
        after, next_value = polygon[(i + 1) % len(polygon)], values[(i + 1) % len(polygon)]
        if value >= 0:
            part.append(point)
        if value == 0:
            crossings.append(point)
        if value * next_value < 0:
            share = value / (value - next_value)
            crossings.append(tuple(a + share * (b - a) for a, b in zip(point, after, strict=True)))
            part.append(crossings[-1])
    return part, crossings


def crosses(polygon, function, level):
    values = [at(function, point) - level for point in polygon]
    thin = THIN * max(map(abs, values))
    return min(values) < -thin and max(values) > thin


def divided(polygon, function, level):
    """The parts on both sides, or the polygon itself; without slivers, which rounding makes where three lines meet."""
    if not crosses(polygon, function, level):
        return [polygon]
    return [side for sign in (1, -1) for side in [clip(polygon, function, level, sign)[0]] if area_and_centroid(side)[0] > SLIVER]


def area_and_centroid(polygon):
    x0, y0 = polygon[0]
    area = x = y = 0.0
    for (ax, ay), (bx, by) in itertools.pairwise(polygon[1:]):
        twice = (ax - x0) * (by - y0) - (bx - x0) * (ay - y0)
        area += twice / 2
        x += twice * (ax + bx - 2 * x0) / 6
        y += twice * (ay + by - 2 * y0) / 6
    return area, (x0 + x / area, y0 + y / area) if area else (x0, y0)


def preactivations(weights, basis, activation, layer, point):
    """The pre-activations of one layer at one point."""
    low, high, shift = PIECES[activation]
    h = [at(function, point) for function in basis]
    for weight in weights[:layer]:
        h = [min(max(sum(w * v for w, v in zip(row, h, strict=True)), low), high) + shift for row in weight]
    return [sum(w * v for w, v in zip(row, h, strict=True)) for row in weights[layer]]


def sides_at_boundary(polygon, function, level):
    """Sides of a face along which a unit is at a boundary, if it is above it inside, and a point just behind each."""
    values = [at(function, point) - level for point in polygon]
    if max(values) <= THIN * max(map(abs, values)):
        return
    # Generous: what is behind the side has the last word.
    near = 1e4 * THIN * max(values)
    for i, a in enumerate(polygon):
        b, value, next_value = polygon[(i + 1) % len(polygon)], values[i], values[(i + 1) % len(polygon)]
        dx, dy = b[0] - a[0], b[1] - a[1]
        if abs(value) <= near and abs(next_value) <= near and math.hypot(dx, dy) > SHORT:
            far = BEHIND / math.hypot(dx, dy)
            behind = (a[0] + b[0]) / 2 + far * dy, (a[1] + b[1]) / 2 - far * dx
            if max(map(abs, behind)) < 1:
                yield sorted([a, b]), behind


def slow_arrangement(network, slice_, last):
    """The faces, as {codes of layers 0 to last: area}, and the segments (layer, unit, boundary, ends) of all of these layers."""
    weights = [weight.double().tolist() for weight in network.weights]
    basis = slice_.basis.double().T.tolist()
    low, high, shift = PIECES[network.activation]
    levels = levels_of(network.activation)
    faces, segments = {}, []

    def descend(polygon, functions, codes):
        layer = len(codes)
        if layer > last:
            faces.setdefault(sum(codes, ()), []).append(area_and_centroid(polygon)[0])
            return
        z = times(weights[layer], functions)
        parts = [polygon]
        for unit, function in enumerate(z):
            for boundary, level in enumerate(levels):
                if crosses(polygon, function, level):
                    # More than two where rounding has left two corners at one place.
                    crossings = sorted(clip(polygon, function, level, 1)[1])
                    segments.append((layer, unit, boundary, [crossings[0], crossings[-1]]))
                for ends, behind in sides_at_boundary(polygon, function, level):
                    if preactivations(weights, basis, network.activation, layer, behind)[unit] <= level:
                        segments.append((layer, unit, boundary, ends))
                parts = [side for part in parts for side in divided(part, function, level)]
        for part in parts:
            values = [at(function, area_and_centroid(part)[1]) for function in z]
            h = [
                (low + shift, 0.0, 0.0) if value <= low else (high + shift, 0.0, 0.0) if value > high else (f[0] + shift, *f[1:])
                for value, f in zip(values, z, strict=True)
            ]
            descend(part, h, [*codes, tuple(sum(value > level for level in levels) for value in values)])

    descend(SQUARE, [tuple(row) for row in basis], [])
    return faces, segments
