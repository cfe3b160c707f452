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
    groups, group = np.unique(group, return_inverse=True)
    vertices, whose = int(part.corners.max()) + 1, np.repeat(group, part.lengths)
    start = whose * vertices + part.corners
    end = start[following(part.lengths)]
    # Neighbours go along their common side in opposite directions.
    rim = np.flatnonzero(~np.isin(end * vertices + part.corners, start * vertices + end % vertices))
    rim = rim[np.argsort(start[rim], kind="stable")]
    next_ = np.minimum(np.searchsorted(start[rim], end[rim]), len(rim) - 1)
    next_ = np.where(start[rim[next_]] == end[rim], next_, np.arange(len(rim)))
    present, number = numbered(whose[rim])
    count = np.bincount(number)
    first = starts(count)
    place, here = np.empty(len(rim), np.int64), first.copy()
    for step in range(int(count.max(initial=0))):
        active = np.flatnonzero(count > step)
        place[first[active] + step] = here[active]
        here[active] = next_[here[active]]
    single = (here == first) & (over(np.minimum, np.bincount(place, minlength=len(rim)), count) == 1)
    rim = rim[place[np.repeat(single, count)]]
    return groups[present[single]], SidedPolygons(count[single], part.corners[rim], part.line[rim])
