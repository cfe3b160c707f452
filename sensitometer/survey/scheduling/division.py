"""Which networks of a survey are trained together: decided once, when they join the survey, and stored. Imports no torch."""

from collections.abc import Sequence
from typing import NamedTuple

from ...configuration import Configuration
from ...errors import StoreError
from ...store import Store
from ...store.schema import Member
from ..spec import Spec
from .plan import choose_stack_sizes
from .speed import Timer
from .stacks import StackSize, make_stacks


class Division(NamedTuple):
    """
    The part of a survey that a store lacks.

    Parameters
    ----------
    sizes
        The stack sizes of the kinds of networks that it has not met.
    stacks
        Kind, predicted seconds and networks of each, in the order of the survey: that of their first networks.
    """

    sizes: dict[str, StackSize]
    stacks: list[tuple[str, float, list[Member]]]

    def enroll(self, store: Store) -> None:
        """Store it."""
        if self.stacks:
            store.record_stack_sizes(self.sizes)
            store.enroll(self.stacks)


def divide(
    spec: Spec, store: Store | None, workers: int, device: str, timer: Timer | None = None, sharing: int | None = None
) -> Division:
    """
    Divide the networks of a survey that are in no stack yet: all of a new one's, and what it has grown by.

    A survey of a version that stored no division is divided as that version did, by the sizes that it has stored.
    """
    enrolled = store.enrolled() if store else set()
    known = {kind: StackSize(*size) for kind, size in store.stack_sizes().items()} if store else {}
    if len(enrolled) == len(spec):
        return Division({}, [])
    order: dict[str, int] = {}
    places: dict[str, int] = {}
    joining: list[Configuration] = []
    for place, one in spec.networks():
        if one.id not in enrolled:
            order[one.id], places[one.id] = len(order), place
            joining.append(one)
    unknown = [one for one in joining if one.kind not in known]
    chosen = choose_stack_sizes(spec, unknown, workers, device, timer, sharing) if unknown else {}
    sizes = known | chosen
    stacks = []
    for stack in make_stacks(joining, {kind: size.networks for kind, size in sizes.items()}):
        members = [Member(one.id, one.seed, places[one.id]) for one in stack]
        stacks.append((stack[0].kind, sizes[stack[0].kind].seconds * len(stack), members))
    stacks.sort(key=lambda stack: min(order[member.id] for member in stack[2]))
    return Division(chosen, stacks)


def configurations(spec: Spec, members: Sequence[Member]) -> list[Configuration]:
    """Return the configurations of the networks of a stack, in their order; StoreError if it is no stack of this survey."""
    grid = spec.grid()
    try:
        places = {place: grid.configuration(place, seed=1) for place in {one.place for one in members}}
    except IndexError:
        places = {}
    found = [places[one.place].with_seed(one.seed) for one in members if one.place in places]
    if [one.id for one in found] != [one.id for one in members]:
        raise StoreError("the stored division into stacks is not one of this specification: 'sensitometer check DIR' says more")
    return found
