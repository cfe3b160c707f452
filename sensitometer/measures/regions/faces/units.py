"""Where units of elementwise operations change their piece inside faces: 64 units are compared at once, as bits."""

from collections.abc import Sequence

import numpy as np

from .lines import Cuts, PreActivations, chord_ends, lines_across, make_segments, put_on_levels
from .polygons import Array, Polygons, following, starts, two_sided


def unit_cuts(layer: int, z: Array, xy: Array, faces: Polygons, levels: Sequence[float], rounding: Array) -> Cuts:
    """
    Return the lines on which a pre-activation of `z` `[V, W]` is at a level inside a face.

    The sides are those along which a unit is exactly at a level while the face is above it. Unless the face behind is above as
    well, such a side is a boundary that no line shows.

    Pre-activations within `rounding` `[W]` of a level, or within a face's tolerance, are put on it.
    """
    functions, first = PreActivations(z), starts(faces.lengths)
    while True:
        above, below, at = _compared(z, levels, rounding)
        face_above, face_below = (np.bitwise_or.reduceat(words[faces.corners], first) for words in (above, below))
        face, boundary, unit = set_bits(face_above & face_below, len(levels))
        lines = lines_across(functions, faces, face, unit, boundary, np.array(levels)[boundary], rounding[unit])
        if not put_on_levels(functions, lines):
            break
        # The other faces at these corners are to see the same.
    start, end = faces.corners, faces.corners[following(faces.lengths)]
    at_level = at[start] & at[end] & np.repeat(face_above, faces.lengths, axis=0) if at.any() else at[:0]
    side, boundary, unit = set_bits(at_level, len(levels))
    sides = make_segments(np.stack([xy[start[side]], xy[end[side]]], 1), layer, unit, boundary, code=1)
    lines = lines.take(two_sided(lines.values, lines.lengths))
    ends, on_edges = chord_ends(functions, lines)
    xy = on_edges.added_to(xy)
    return Cuts(functions, lines, ends, on_edges, xy, make_segments(xy[ends], layer, lines.function, lines.boundary), sides)


def _compared(z: Array, levels: Sequence[float], rounding: Array) -> tuple[Array, Array, Array]:
    """Return where `z` is above, below and at the levels, as `bits` does; values within `rounding` of a level are put on it."""

    def compared(margin: float) -> tuple[Array, Array, Array]:
        above, below = np.empty((2, len(z), len(levels), z.shape[1]), bool)
        for boundary, level in enumerate(levels):
            np.greater(z, level + margin, out=above[:, boundary])
            np.less(z, level - margin, out=below[:, boundary])
        words = bits(above), bits(below)
        return *words, ~(words[0] | words[1]) & bits(np.ones((1, *above.shape[1:]), bool))

    # With one margin for all units, which is too large for most, it is quick to see that there is nothing to be put.
    above, below, at = compared(float(rounding.max()))
    if not at.any():
        return above, below, at
    corner, boundary, unit = set_bits(at, len(levels))
    level = np.array(levels)[boundary]
    near = abs(z[corner, unit] - level) <= rounding[unit]
    z[corner[near], unit[near]] = level[near]
    return compared(0.0)


def bits(truths: Array) -> Array:
    """Return truth values `[n, T, W]` as bits in `[n, T * words]`: 64 units are compared at once."""
    packed = np.packbits(truths, axis=2)
    words = np.zeros((*packed.shape[:2], -(-packed.shape[2] // 8) * 8), np.uint8)
    words[:, :, : packed.shape[2]] = packed
    return words.reshape(len(packed), -1).view(np.uint64)


def set_bits(words: Array, truths: int) -> tuple[Array, Array, Array]:
    """Return row, number of the truth value and unit of each bit that is set, in this order."""
    row, column = np.nonzero(words)
    place, bit = np.nonzero(np.unpackbits(words[row, column, None].view(np.uint8), axis=1))
    truth, word = np.divmod(column[place], words.shape[1] // truths)
    return row[place], truth, 64 * word + bit
