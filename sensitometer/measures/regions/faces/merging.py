"""Joins convex polygons that together are one convex polygon, such as pieces of a face that should not have been cut."""

import numpy as np

from .cutting import SidedPolygons
from .polygons import Array, Polygons, following, numbered, over, starts


def merged(pieces: SidedPolygons, group: Array, old: int) -> Polygons:
    """
    Return `pieces` with all pieces of one group joined to one; the pieces of group -1 stay apart.

    Vertices from number `old` on are left out where two sides of one line meet. Groups that do not make a single polygon without
    holes are left as they are.
    """
    several = np.bincount(group[group >= 0], minlength=1) > 1
    joins = (group >= 0) & several[group]
    if not joins.any():
        return Polygons(pieces.lengths, pieces.corners)
    part, group = pieces.take(joins), group[joins]
    joined, rims = _rims(part, group)
    before = np.empty_like(rims.line)
    before[following(rims.lengths)] = rims.line
    stays = (rims.corners < old) | (rims.line != before)
    done = Polygons(over(np.add, stays.astype(np.int64), rims.lengths), rims.corners[stays])
    rest = pieces.take(~joins), part.take(~np.isin(group, joined))
    return Polygons.joined([*(Polygons(polygons.lengths, polygons.corners) for polygons in rest), done])


def _rims(part: SidedPolygons, group: Array) -> tuple[Array, SidedPolygons]:
    """Return the groups whose rim, the sides that no other polygon of the group has, is a single round, and these rims."""
    whose = np.repeat(group, part.lengths)
    start, end = part.corners, part.corners[following(part.lengths)]
    low, high = np.minimum(start, end), np.maximum(start, end)
    order = np.lexsort((high, low, whose))
    twice = np.flatnonzero(np.all([np.diff(column[order]) == 0 for column in (high, low, whose)], axis=0))
    outer = np.ones(len(start), bool)
    outer[order[twice]] = outer[order[twice + 1]] = False
    rim = np.flatnonzero(outer)
    rim = rim[np.lexsort((start[rim], whose[rim]))]
    vertices = int(start.max()) + 1
    key, wanted = whose[rim] * vertices + start[rim], whose[rim] * vertices + end[rim]
    next_ = np.minimum(np.searchsorted(key, wanted), len(key) - 1)
    next_[key[next_] != wanted] = -1
    groups, number = numbered(whose[rim])
    count = np.bincount(number)
    place, single = _walk(next_, count)
    rim = rim[place[np.repeat(single, count)]]
    return groups[single], SidedPolygons(count[single], start[rim], part.line[rim])


def _walk(next_: Array, count: Array) -> tuple[Array, Array]:
    """
    Return the places of the sides of each rim in the order of the round, and which rims are a single round.

    `next_` is the place of the next side of each side, or -1, and `count` how many sides each rim has.
    """
    first = starts(count)
    place, here, active = np.full(len(next_), -1), first.copy(), np.arange(len(count))
    for step in range(int(count.max(initial=0))):
        active = active[(count[active] > step) & (here[active] >= 0)]
        place[first[active] + step] = here[active]
        here[active] = next_[here[active]]
    seen = np.bincount(place[place >= 0], minlength=len(next_))
    return place, (here == first) & (over(np.minimum, seen, count) == 1)
