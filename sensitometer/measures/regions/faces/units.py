"""Where units of elementwise operations change their piece inside faces: 64 units are compared at once, as bits."""

from collections.abc import Sequence

import numpy as np

from .lines import Functions, Lines, Segments
from .polygons import Array, Polygons, following, starts, two_sided


def unit_lines(z: Array, xy: Array, faces: Polygons, levels: Sequence[float], rounding: Array) -> tuple[Lines, Segments]:
    """
    Return the lines on which a pre-activation of `z` `[V, W]` is at a level inside a face, and sides of faces at a level.

    The sides are those along which a unit is exactly at a level while the face is above it. Unless the face behind is above as
    well, that is a boundary that no line shows.

    Puts on a level, in `z`, what is within `rounding` `[W]` of it, or within a face's tolerance.
    """
    functions: Functions | None = Functions(z)
    while functions:
        face, unit, boundary, sides = _crossing_units(z, faces, levels, rounding)
        lines = Lines.across(functions, faces, face, unit, boundary, np.array(levels)[boundary], rounding[unit])
        # The other faces at these corners are to see the same.
        functions = lines.put_on_levels()
    start, end, unit, boundary = sides
    segments = Segments(np.stack([xy[start], xy[end]], 1), unit, boundary, np.ones_like(unit))
    return lines.take(two_sided(lines.values, lines.lengths)), segments


def _crossing_units(z: Array, faces: Polygons, levels: Sequence[float], rounding: Array) -> tuple[Array, Array, Array, Array]:
    """
    Return face, unit and boundary wherever a face has corners on both sides, ordered by face; and sides of `unit_lines` `[4, n]`.

    The sides are start, end, unit and boundary. Puts what is within `rounding` of a level on it.
    """
    above, below, at = _told(z, levels, rounding)
    first = starts(faces.lengths)
    face_above = np.bitwise_or.reduceat(above[faces.corners], first)
    both = face_above & np.bitwise_or.reduceat(below[faces.corners], first)
    face, boundary, unit = set_bits(both, len(levels))
    sides = np.empty((4, 0), np.int64)
    if at.any():
        start, end = faces.corners, faces.corners[following(faces.lengths)]
        side, which, own = set_bits(at[start] & at[end] & np.repeat(face_above, faces.lengths, axis=0), len(levels))
        sides = np.stack([start[side], end[side], own, which])
    return face, unit, boundary, sides


def _told(z: Array, levels: Sequence[float], rounding: Array) -> tuple[Array, Array, Array]:
    """Return where `z` is above, below and at the levels, as `bits` does; what is within `rounding` of one is put on it."""

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
    which, bit = np.nonzero(np.unpackbits(words[row, column, None].view(np.uint8), axis=1))
    truth, word = np.divmod(column[which], words.shape[1] // truths)
    return row[which], truth, 64 * word + bit
