"""Which networks of a survey are trained together: decided once, when they join the survey, and stored. Imports no torch."""

from collections.abc import Sequence
from typing import NamedTuple

from ...configuration import Configuration
from ...errors import StoreError
from ...store import Store
from ...store.schema import Member
from ..spec import Spec
from .cost import stack_seconds
from .machines import ANY_GPU, this_machine
from .stacks import choose_stack_sizes, kinds, make_stacks


class StackSize(NamedTuple):
    """How many networks of one kind are trained together, and the seconds that each of them takes, predicted."""

    networks: int
    seconds: float


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


def divide(spec: Spec, store: Store | None, device: str) -> Division:
    """
    Divide the networks of a survey that are in no stack yet: all of a new one's, and what it has grown by.

    The division is the same wherever the survey begins; only the predicted seconds are this machine's. Kinds that the store has
    the sizes of keep these.
    """
    enrolled = store.enrolled() if store else set()
    known = {kind: StackSize(*size) for kind, size in store.stack_sizes().items()} if store else {}
    if len(enrolled) == len(spec):
        return Division({}, [])
    order: dict[str, int] = {}
    places: dict[str, int] = {}
    joining: list[Configuration] = []
    for place, configuration in spec.networks():
        if configuration.id not in enrolled:
            order[configuration.id], places[configuration.id] = len(order), place
            joining.append(configuration)
    chosen = _stack_sizes(spec, [configuration for configuration in joining if configuration.kind not in known], device)
    sizes = known | chosen
    stacks = []
    for stack in make_stacks(joining, {kind: size.networks for kind, size in sizes.items()}):
        members = [Member(configuration.id, configuration.seed, places[configuration.id]) for configuration in stack]
        stacks.append((stack[0].kind, sizes[stack[0].kind].seconds * len(stack), members))
    stacks.sort(key=lambda stack: min(order[member.id] for member in stack[2]))
    return Division(chosen, stacks)


def _stack_sizes(spec: Spec, configurations: Sequence[Configuration], device: str) -> dict[str, StackSize]:
    machine = this_machine() if device == "cpu" else ANY_GPU
    checked = spec.training.stop_at_accuracy is not None
    sizes = spec.sizes()
    networks = choose_stack_sizes(configurations, sizes, device)
    seconds = {
        kind: stack_seconds(alike[: networks[kind]], sizes[alike[0].dataset], machine, checked=checked)
        for kind, alike in kinds(configurations).items()
    }
    return {kind: StackSize(networks[kind], seconds[kind] / networks[kind]) for kind in networks}


def configurations(spec: Spec, members: Sequence[Member]) -> list[Configuration]:
    """Return the configurations of the networks of a stack, in their order; StoreError if it is no stack of this survey."""
    grid = spec.grid()
    try:
        places = {place: grid.configuration(place, seed=1) for place in {member.place for member in members}}
    except IndexError:
        places = {}
    stack = [places[member.place].with_seed(member.seed) for member in members if member.place in places]
    if [configuration.id for configuration in stack] != [member.id for member in members]:
        raise StoreError("the stored division into stacks is not one of this specification: 'sensitometer check DIR' says more")
    return stack
