"""Whether a survey's folder is sound, and what can be mended where it is not. Imports no torch."""

import itertools
from collections.abc import Callable, Iterator, Mapping
from contextlib import nullcontext
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from ..configuration import FIELDS
from ..errors import InvalidInputError, StoreError
from ..files import UNFINISHED, remove
from ..store import ARRAYS, SAVED, SPECIFICATION, WEIGHTS, Store
from ..store.arrays import SUFFIX, read_arrays
from ..store.schema import FILE, Member
from .runner import being_written, only_writer
from .salvage import find_damage, id_of, salvage
from .spec import Spec, parse_spec

# Appended by earlier versions to the name of a file that was being written.
EARLIER = ".new"


@dataclass(frozen=True)
class Finding:
    """A fault, and how it can be mended; None if it cannot, or takes care of itself."""

    wrong: str
    repair: str | None = None
    mend: Callable[[], object] | None = field(default=None, repr=False, compare=False)


def check_survey(folder: str | Path, *, repair: bool = False) -> list[Finding]:
    """
    Return what is wrong with the survey in `folder`: with its results file, its rows, its division into stacks, and its files.

    Parameters
    ----------
    folder
        The survey's folder.
    repair
        Whether to mend what can be mended. Nothing that can be read is lost; rows that are thrown away are trained again by the
        next run.

    Raises
    ------
    StoreError
        There is no survey; or, with `repair`, a run is writing to it, or the folder cannot be written.
    """
    folder = Path(folder)
    if not Store.exists(folder):
        Store(folder)  # says so
    with only_writer(folder) if repair else nullcontext():
        damage = find_damage(folder / FILE)
        if damage is None:
            return _check_whole(folder, repair)
        readable, kept = salvage(folder, repair=repair)
        finding = Finding(
            f"{folder / FILE} is damaged ({damage}); {readable} of its networks can be read",
            f"keep it as {kept}, and copy these into a new file: the next run trains the others",
        )
        # The rest can only be said of a file that is whole.
        return [finding, *(_check_whole(folder, repair) if repair else [])]


def _check_whole(folder: Path, repair: bool) -> list[Finding]:
    """Check a survey whose results file is whole; each fault is mended before the next check."""
    with Store(folder) as store:
        try:
            spec = parse_spec(store.specification, str(folder / SPECIFICATION))
        except (InvalidInputError, StoreError) as error:
            return [Finding(f"{error}: it must be put back as it was")]
        wanted = {network.id: Member(network.id, network.seed, place) for place, network in spec.networks()}
        findings = []
        checks = (_rows(store, wanted), _stacks(store, wanted), _files(store, spec), _leftovers(store, repair))
        for finding in itertools.chain(*checks):
            if repair and finding.mend is not None:
                finding.mend()
            findings.append(finding)
        return findings


def _rows(store: Store, wanted: Mapping[str, Member]) -> Iterator[Finding]:
    """Look for rows whose id is not that of their configuration, and for such that the survey does not ask for."""
    rows = store.rows(("id", *FIELDS))
    wrong = [row[0] for row in rows if id_of(row[1:]) != row[0]]
    if wrong:
        text = f"{len(wrong)} rows have an id that is not that of their configuration, such as {wrong[0]}"
        yield Finding(text, "throw them away", lambda: store.forget(wrong))
    strangers = {row[0] for row in rows} - wanted.keys() - set(wrong)
    if strangers:
        yield Finding(f"{len(strangers)} rows are of networks that the survey does not ask for, such as {min(strangers)}")


def _stacks(store: Store, wanted: Mapping[str, Member]) -> Iterator[Finding]:
    """Look for networks that are in no stack or in the wrong one, and for stacks whose missing networks are miscounted."""
    members = store.all_members()
    networks = sum(stack.networks for stack in store.stacks())
    strange = sum(wanted.get(member.id) != member for member in members)
    if strange or networks != len(members):
        text = (
            f"the division into stacks is damaged, or of another specification: of {len(members)} networks, where it says "
            f"{networks}, {strange} are not what the survey asks for"
        )
        yield Finding(text, "divide the survey anew", store.forget_division)
        return
    undivided = len(wanted.keys() - {member.id for member in members})
    if undivided:
        yield Finding(f"{undivided} networks are in no stack: the next run divides them")
    count = store.miscounted()
    if count:
        yield Finding(f"the missing networks of {count} stacks are miscounted", "count them", store.count_missing)


def _files(store: Store, spec: Spec) -> Iterator[Finding]:
    """Look for networks whose weights or arrays should have been kept, and are not there or not whole."""
    for folder, kept, without_any in (
        (WEIGHTS, spec.survey.keep_weights, ("failed",)),
        # No measure of a network that diverged means anything.
        (ARRAYS, spec.measure.keeps_arrays, ("failed", "diverged")),
    ):
        # In this order: files are written before the rows.
        ids = sorted(id_ for id_, state in store.rows(("id", "state")) if kept and state not in without_any)
        without = [id_ for id_ in ids if not _is_whole(store.folder / folder / f"{id_}{SUFFIX}")]
        if without:
            text = f"{len(without)} networks are stored without their {folder}, such as {without[0]}"
            yield Finding(text, "throw their rows away", partial(store.forget, without))


def _is_whole(file: Path) -> bool:
    """Return whether a safetensors file is as long as its header says, and has what is measured together."""
    try:
        read_arrays(file, ())
    except StoreError:
        return False
    return True


def _leftovers(store: Store, repair: bool) -> Iterator[Finding]:
    """Look for what killed processes have left behind, if no run is writing."""
    folder = store.folder
    if not repair and being_written(folder):
        return
    # States are gone on from as long as anything is missing.
    saved = ("*",) if not store.stacks(missing=True) else (f"*{UNFINISHED}", f"*{EARLIER}")
    patterns = (
        *(f"{room}*{UNFINISHED}" for room in ("", f"{WEIGHTS}/", f"{ARRAYS}/", "figures/")),
        *(f"{FILE}{EARLIER}*", f"{SPECIFICATION}{EARLIER}", f"{WEIGHTS}/*{EARLIER}", f"{ARRAYS}/*{EARLIER}"),
        *("figures/.figures-*", ".salvage-*"),
        *(f"{SAVED}/{pattern}" for pattern in saved),
    )
    files = [file for pattern in patterns for file in folder.glob(pattern)]
    if files:
        subject = f"{len(files)} {'file is' if len(files) == 1 else 'files are'} left over from a process that was killed"
        yield Finding(f"{subject}, such as {files[0].relative_to(folder)}", "remove them", lambda: [*map(remove, files)])
