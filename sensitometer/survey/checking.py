"""Whether a survey's folder is sound, and what can be mended where it is not. Imports no torch."""

import itertools
import operator
import re
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import nullcontext
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from ..configuration import FIELDS
from ..errors import InvalidInputError, StoreError, counted
from ..files import UNFINISHED, remove
from ..store import ARRAYS, SAVED, SPECIFICATION, WEIGHTS, Store
from ..store.arrays import SUFFIX, add_digests, find_fault, has_digests
from ..store.folder import FIGURES, FILE, REPAIRED, check_folder
from ..store.schema import COLUMNS, Member
from .runner import being_written, only_writer
from .salvage import SALVAGE, end_repair, find_damage, id_of, salvage
from .scheduling.stacks import is_saved_state
from .spec import Spec, parse_spec

# Appended by earlier versions to the name of a network's file that was being written.
EARLIER = ".new"
UNKNOWN = "nothing vouches for what they were before"
_PLACES = {name: place for place, name in enumerate(COLUMNS)}
_FIELDS = operator.itemgetter(*(_PLACES[name] for name in FIELDS))


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
    check_folder(folder)
    interrupted = (folder / REPAIRED).exists()
    if not interrupted and not Store.exists(folder):
        Store(folder)  # says so
    findings = [Finding(f"a repair of {folder} was interrupted", "end it")] if interrupted else []
    if interrupted and not repair:
        return findings  # only the repaired file is worth checking
    with only_writer(folder) if repair else nullcontext():
        if repair:
            end_repair(folder)
        damage = find_damage(folder / FILE)
        if damage is not None:
            readable, kept = salvage(folder, repair=repair)
            findings.append(
                Finding(
                    f"{folder / FILE} is damaged ({damage}); {readable} of its networks can be read",
                    f"keep it as {kept}, and copy these into a new file: the next run trains the others",
                )
            )
            if not repair:
                return findings  # the rest can only be said of a file that is whole
        return [*findings, *_check_whole(folder, repair)]


def unvouched(folder: str | Path) -> list[str]:
    """
    Return what a survey that is sound cannot vouch for: rows and files that earlier versions stored without digests.

    Raises
    ------
    StoreError
        There is no survey in the folder, or it cannot be read.
    """
    folder = Path(folder)
    notes = []
    with Store(folder) as store:
        for upgrade in store.upgrades():
            if upgrade.networks and upgrade.at is None:
                notes.append(f"{counted(upgrade.networks, 'row')} of an earlier version have no digests: the next run makes them")
            elif upgrade.networks and upgrade.at is not None:
                day = time.strftime("%Y-%m-%d", time.gmtime(upgrade.at))
                notes.append(
                    f"{counted(upgrade.networks, 'row')} got digests on {day}: nothing vouches for what they were before"
                )
    for room in (WEIGHTS, ARRAYS):
        days = [has_digests(file) for file in _network_files(folder / room)]
        without, late = sum(not there for there, _ in days), [day for _, day in days if day is not None]
        if without:
            notes.append(f"{counted(without, 'file')} in {room} of an earlier version have no digests: --repair adds them")
        if late:
            notes.append(f"{counted(len(late), 'file')} in {room} got digests on {min(late)} or later: {UNKNOWN}")
    return notes


def _network_files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.glob(f"*{SUFFIX}") if re.fullmatch("[0-9a-f]{16}", path.stem))


def _check_whole(folder: Path, repair: bool) -> list[Finding]:
    """Check a survey whose results file is whole; each fault is mended before the next check."""
    with Store(folder) as store:
        try:
            spec = parse_spec(store.specification, str(folder / SPECIFICATION))
        except (InvalidInputError, StoreError) as error:
            return [Finding(f"{error}: it must be put back as it was")]
        wanted = {network.id: Member(network.id, network.seed, place) for place, network in spec.networks()}
        findings = []
        checks = (_rows(store, wanted), _runs(store), _stacks(store, wanted), _files(store, spec), _leftovers(store, repair))
        for finding in itertools.chain(*checks):
            if repair and finding.mend is not None:
                finding.mend()
            findings.append(finding)
        if repair:
            store.bring_up_to_date()
            _add_digests(store)
        return findings


def _add_digests(store: Store) -> None:
    """Add digests to the files of stored networks that earlier versions wrote: those that are left are whole."""
    stored = {id_ for (id_,) in store.rows(["id"])}
    for room in (WEIGHTS, ARRAYS):
        for file in _network_files(store.folder / room):
            if file.stem in stored and find_fault(file, arrays=room == ARRAYS) is None and not has_digests(file)[0]:
                add_digests(file)


def _rows(store: Store, wanted: Mapping[str, Member]) -> Iterator[Finding]:
    """Look for rows that have changed, whose id is not that of their configuration, or that the survey does not ask for."""
    changed, wrong, ids = {}, {}, set()
    for rowid, sound, values in store.verified():
        if not sound:
            changed[rowid] = values[0]
        elif id_of(_FIELDS(values)) != values[0]:
            wrong[rowid] = values[0]
        else:
            ids.add(values[0])
    for rows, text in (
        (changed, "rows are not as they were stored"),
        (wrong, "rows have an id that is not that of their configuration"),
    ):
        if rows:
            first = next(iter(rows.values()))
            yield Finding(f"{len(rows)} {text}, such as {first!s:.40}", "throw them away", partial(store.forget_rows, [*rows]))
    strangers = ids - wanted.keys()
    if strangers:
        yield Finding(f"{len(strangers)} rows are of networks that the survey does not ask for, such as {min(strangers)}")


def _runs(store: Store) -> Iterator[Finding]:
    """Look for what was stored of runs and has changed: the time that is left is predicted from it."""
    changed = [rowid for rowid, sound, values in store.verified("runs") if not sound or None in values]
    if changed:
        text = f"what is stored of {counted(len(changed), 'run')} is not as it was stored"
        yield Finding(text, "throw it away", partial(store.forget_rows, changed, "runs"))


def _stacks(store: Store, wanted: Mapping[str, Member]) -> Iterator[Finding]:
    """Look for networks that are in no stack or in the wrong one, and for stacks whose missing networks are miscounted."""
    try:
        members, stacks = store.all_members(), store.stacks()
    except StoreError as error:
        yield Finding(f"the division into stacks is damaged: {error}", "divide the survey anew", store.forget_division)
        return
    changed = sum(not sound for _, sound, _ in store.verified("stacks"))
    if changed:
        text = f"the division into stacks is damaged: {counted(changed, 'stack')} are not as they were stored"
        yield Finding(text, "divide the survey anew", store.forget_division)
        return
    networks = sum(stack.networks for stack in stacks)
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
    """Look for networks whose weights or arrays should have been kept, and are not there or not as they were written."""
    for folder, kept, without_any in (
        (WEIGHTS, spec.survey.keep_weights, ("failed",)),
        # No measure of a network that diverged means anything.
        (ARRAYS, spec.measure.keeps_arrays, ("failed", "diverged")),
    ):
        # In this order: files are written before the rows.
        ids = sorted(id_ for id_, state in store.rows(("id", "state")) if kept and state not in without_any)
        faults = {id_: find_fault(store.folder / folder / f"{id_}{SUFFIX}", arrays=folder == ARRAYS) for id_ in ids}
        without = {id_: fault for id_, fault in faults.items() if fault is not None}
        if without:
            first, fault = next(iter(without.items()))
            text = f"{counted(len(without), 'network')} have lost their {folder}, such as {first}: {fault}"
            yield Finding(text, "throw their rows away", partial(store.forget, list(without)))


def _leftovers(store: Store, repair: bool) -> Iterator[Finding]:
    """Look for what killed processes have left behind, if no run is writing."""
    folder = store.folder
    if not repair and being_written(folder):
        return
    finished = not store.stacks(missing=True)
    leftovers = [
        path
        for room in ("", WEIGHTS, ARRAYS, SAVED, FIGURES)
        for path in sorted((folder / room).glob("*"))
        if _is_left_over(room, path.name, finished=finished)
    ]
    if leftovers:
        subject = f"{len(leftovers)} {'file is' if len(leftovers) == 1 else 'files are'} left over from a process that was killed"
        # Each is named: what is removed is gone.
        names = ", ".join(ascii(str(path.relative_to(folder)))[1:-1] for path in leftovers)
        yield Finding(f"{subject}: {names}", "remove them", lambda: [*map(remove, leftovers)])


def _is_left_over(room: str, name: str, *, finished: bool) -> bool:
    """Return whether a name in a folder of a survey is one that this program alone gives, to what it removes by itself."""
    if name.endswith(UNFINISHED) or (room == "" and name.startswith(SALVAGE)):
        return True
    # States are gone on from as long as anything is missing.
    if room == SAVED and finished and is_saved_state(name):
        return True
    return room in (WEIGHTS, ARRAYS, SAVED) and name.endswith(EARLIER) and is_saved_state(name.removesuffix(EARLIER))
