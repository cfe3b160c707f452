"""Joins convex polygons that together are one convex polygon, such as pieces of a face that should not have been cut."""

import numpy as np

from .polygons import Array, Polygons, following, over, ranges, starts


def merged(faces: Polygons, side: Array, group: Array, old: int) -> Polygons:
    """
    Return `faces` with those of one group, but for group -1, joined to one.

    `side` `[I]` is the line that each corner's side, to the next corner, is part of, or -1. Vertices from number `old` on are
    left out where two sides of one line meet. What is not a single polygon without holes is left as it is.
    """
    several = np.bincount(group[group >= 0], minlength=1) > 1
    joins = (group >= 0) & several[group]
    if not joins.any():
        return faces
    which = np.flatnonzero(joins)
    part, side = faces.take(which), side[np.repeat(joins, faces.lengths)]
    name = np.unique(group[which], return_inverse=True)[1].reshape(-1)
    rim, next_, whose = _rim(part, name)
    place, count = _walk(next_, whose, int(name.max()) + 1)
    corner, line = part.corners[rim][place], side[rim][place]
    before = line[_preceding(count)]
    stays = (corner < old) | (line != before)
    done = Polygons(over(np.add, stays.astype(np.int64), count), corner[stays]) if len(count) else Polygons(count, corner)
    # Groups that are no single polygon have no corners here.
    failed = np.ones(int(name.max()) + 1, bool)
    failed[np.unique(whose[place])] = False
    rest = [faces.take(np.flatnonzero(~joins)), part.take(np.flatnonzero(failed[name])), done]
    return Polygons(np.concatenate([one.lengths for one in rest]), np.concatenate([one.corners for one in rest]))


def _rim(part: Polygons, name: Array) -> tuple[Array, Array, Array]:
    """
    Return the sides that are on the rim of each group: no other polygon of the group has them.

    They are numbers of corners, ordered by group and start. With each comes the place of the next one, or -1, and its group.
    """
    whose = np.repeat(name, part.lengths)
    start, end = part.corners, part.corners[following(part.lengths)]
    low, high = np.minimum(start, end), np.maximum(start, end)
    order = np.lexsort((high, low, whose))
    twice = np.flatnonzero(np.all([np.diff(each[order]) == 0 for each in (high, low, whose)], axis=0))
    outer = np.ones(len(start), bool)
    outer[order[twice]] = outer[order[twice + 1]] = False
    rim = np.flatnonzero(outer)
    rim = rim[np.lexsort((start[rim], whose[rim]))]
    vertices = int(start.max()) + 1
    key, wanted = whose[rim] * vertices + start[rim], whose[rim] * vertices + end[rim]
    next_ = np.minimum(np.searchsorted(key, wanted), len(key) - 1)
    next_[key[next_] != wanted] = -1
    return rim, next_, whose[rim]


def _walk(next_: Array, whose: Array, groups: int) -> tuple[Array, Array]:
    """
    Return the places of the sides of each group in the order of their rim, one group after the other, and how many these are.

    Groups are left out whose sides are not a single round.
    """
    count = np.bincount(whose, minlength=groups)
    first = starts(count)
    place = np.full(len(whose), -1)
    here, active = first.copy(), np.flatnonzero(count)
    for step in range(int(count.max())):
        active = active[(count[active] > step) & (here[active] >= 0)]
        place[first[active] + step] = here[active]
        here[active] = next_[here[active]]
    seen = np.bincount(place[place >= 0], minlength=len(whose))
    once = over(np.minimum, seen, count[count > 0]) == 1
    round_ = np.zeros(groups, bool)
    round_[count > 0] = once & (here[count > 0] == first[count > 0])
    return place[ranges(first[round_], count[round_])], count[round_]


def _preceding(lengths: Array) -> Array:
    """Return for each place in runs of these lengths the one before, for the first of a run its last."""
    before = np.arange(lengths.sum()) - 1
    first = starts(lengths)
    before[first] = first + lengths - 1
    return before
