"""Which networks of a survey are trained together: decided once, when they join the survey, and stored. Imports no torch."""

from collections.abc import Sequence

from ...configuration import Configuration
from ...errors import StoreError
from ...store import Store
from ...store.schema import Member
from ..spec import Spec
from .cost import stack_seconds
from .machines import ANY_GPU, this_machine
from .stacks import choose_stack_sizes, make_stacks

# The kind, the predicted seconds and the networks of each stack, as `Store.enroll` takes them.
Division = list[tuple[str, float, list[Member]]]


def divide(spec: Spec, store: Store | None, device: str) -> Division:
    """
    Divide the networks of a survey that are in no stack yet: all of a new one's, and those it has grown by.

    The stacks are in the order of the survey: that of their first networks. The division is the same wherever the survey begins;
    the seconds are this machine's.
    """
    enrolled = {member.id for member in store.all_members()} if store else set()
    if len(enrolled) == len(spec):
        return []
    joining: dict[Configuration, int] = {}
    for place, configuration in spec.networks():
        if configuration.id not in enrolled:
            joining[configuration] = place
    kept = store.stack_sizes() if store else {}
    sizes = spec.sizes()
    unknown = [configuration for configuration in joining if configuration.kind not in kept]
    networks = choose_stack_sizes(unknown, sizes, device) | kept
    machine = this_machine() if device == "cpu" else ANY_GPU
    order = {configuration: number for number, configuration in enumerate(joining)}
    stacks = sorted(make_stacks(list(joining), networks), key=lambda stack: min(order[network] for network in stack))
    return [
        (
            stack[0].kind,
            stack_seconds(stack, sizes[stack[0].dataset], machine),
            [Member(network.id, network.seed, joining[network]) for network in stack],
        )
        for stack in stacks
    ]


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
