"""
Writes docs/results.md: each reduced experiment on real data, its figures and claims, and the findings of the paper.

The surveys are in docs/results/. One that is not there is trained first, which takes minutes; to train one anew, remove its
folder.
"""

import math
import shutil
import sqlite3
import tomllib
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple

from sensitometer.claims import Claim, check_claims
from sensitometer.cli.printing import QUANTITY_NAMES
from sensitometer.figures import save_figures
from sensitometer.figures.catalogue import figure_module
from sensitometer.store import ARRAYS, SPECIFICATION, Store, open_survey
from sensitometer.store.arrays import read_arrays, write_arrays
from sensitometer.store.schema import FILE
from sensitometer.survey import load_spec, run_survey

DOCS = Path(__file__).parent
RESULTS = DOCS / "results"
PAGE = DOCS / "results.md"
HEAD = "# Results\n\n<!-- Written by `make results`, with the words of results/experiments.toml. -->\n"


class Experiment(NamedTuple):
    """
    One section of the page.

    Parameters
    ----------
    name
        Name of the preset at the paper's scale; the survey here is `name`-reduced.
    title
        Its subject, and the section of the paper.
    figures, claims
        Numbers of the figures and claims that are shown.
    paper, here
        The paper's findings, and a comment on ours.
    """

    name: str
    title: str
    figures: list[str]
    claims: list[int]
    paper: str
    here: str


WORDS = tomllib.loads((RESULTS / "experiments.toml").read_text(encoding="utf-8"))
EXPERIMENTS = [Experiment(**words) for words in WORDS["experiment"]]


def main() -> None:
    """Train what is not there, draw all figures, and write the page."""
    for experiment in EXPERIMENTS:
        folder = RESULTS / experiment.name
        if not Store.exists(folder):
            with TemporaryDirectory() as trained:
                run_survey(f"{experiment.name}-reduced", trained).close()
                attach(Path(trained), folder)
        with open_survey(folder) as store:
            save_figures(store, folder, experiment.figures, ["png"])
        for table in folder.glob("figure_*.csv"):  # the survey has all of it
            table.unlink()
    PAGE.write_text(page(), encoding="utf-8")


def attach(survey: Path, folder: Path) -> None:
    """
    Copy a survey without the name of the machine, and without most boundaries on slices, which would make it large.

    Only the network that is drawn keeps the boundaries themselves; the others keep the distances from them.
    """
    folder.mkdir(parents=True)
    shutil.copy(survey / SPECIFICATION, folder)
    with closing(sqlite3.connect(survey / FILE)) as connection:
        connection.execute("VACUUM INTO ?", (str(folder / FILE),))
    with closing(sqlite3.connect(folder / FILE)) as connection:
        connection.execute("UPDATE networks SET host = NULL")
        connection.execute("UPDATE runs SET writer = ''")
        connection.commit()
        connection.execute("VACUUM")
    with open_survey(survey) as store:
        kept = sorted(store.kept())
        if not kept:
            return
        (folder / ARRAYS).mkdir()
        slices = any(store.arrays(id_, "slice.") for id_ in kept)
        drawn = set(figure_module("3").collect(store).tables["_distances"]["id"]) if slices else set()
        for id_ in kept:
            file = f"{id_}.safetensors"
            arrays = read_arrays(survey / ARRAYS / file)
            kept_arrays = {name: values for name, values in arrays.items() if id_ in drawn or not name.endswith(".segments")}
            write_arrays(folder / ARRAYS / file, kept_arrays)


def page() -> str:
    """Return the text of the page, from the surveys as they are."""
    sections = []
    verdicts = []
    for experiment in EXPERIMENTS:
        with open_survey(RESULTS / experiment.name) as store:
            # All that was computed, with or without a verdict.
            claims = [claim for claim in check_claims(store) if claim.number in experiment.claims and claim.count]
            sections.append(section(experiment, store, claims))
        verdicts += [(claim, experiment.name) for claim in claims]
    return "\n".join([HEAD, WORDS["before"], summary(verdicts), WORDS["after"], *sections])


def summary(verdicts: Sequence[tuple[Claim, str]]) -> str:
    """Return a table that counts the verdicts on the statistics of each claim."""
    lines = ["| claim | holds | does not hold | not enough data | in |", "|---|---|---|---|---|"]
    for number, words in WORDS["claims"].items():
        of_claim = [(claim.verdict, name) for claim, name in verdicts if claim.number == int(number)]
        counts = [sum(verdict == kind for verdict, _ in of_claim) for kind in ("holds", "does not hold", "not enough data")]
        where = ", ".join(f"[{name}](#{name})" for name in dict.fromkeys(name for _, name in of_claim))
        lines.append(f"| {number}. {words} | {' | '.join(map(str, counts))} | {where} |")
    return "\n".join(lines) + "\n"


def section(experiment: Experiment, store: Store, claims: Sequence[Claim]) -> str:
    """Return the section of one experiment."""
    name = experiment.name
    spec, _ = load_spec(store.folder / SPECIFICATION)
    run, counts = store.last_run(), store.counts()
    assert run is not None
    points = f"the first {spec.data.train_points:,} training points" if spec.data.train_points else "all training points"
    states = ", ".join(f"{count:,} {state}" for state, count in counts.items() if count)
    lines = [
        f"## {name}\n",
        f"{experiment.title}\n",
        f"    sensitometer run {name}-reduced --out {name}\n",
        f"{', '.join(spec.data.names)}, {points}; {len(spec):,} networks ({states}) in {run.last_at - run.begun_at:.0f} s with "
        f"{run.workers} workers. The survey: [results/{name}](results/{name}).\n",
    ]
    for number in experiment.figures:
        (picture,) = (RESULTS / name).glob(f"figure_{number}_*.png")
        label = f"Figure {'App. ' if int(number) > 6 else ''}{number}"
        lines.append(f"![{label}: {WORDS['figures'][number]}](results/{name}/{picture.name})\n")
    if claims:
        lines += ["| claim | statistic | value | 95% interval | claimed | verdict |", "|---|---|---|---|---|---|"]
        lines += [claim_row(claim) for claim in claims]
        lines.append("")
    lines.append(f"**The paper.** {experiment.paper}")
    lines.append(f"**Here.** {experiment.here}")
    return "\n".join(lines)


def claim_row(claim: Claim) -> str:
    """Return one line of a table of claims."""
    about = ": ".join(filter(None, (claim.subject, QUANTITY_NAMES.get(claim.quantity, claim.quantity))))
    interval = f"{claim.low:z.3f} to {claim.high:z.3f}" if math.isfinite(claim.low) else "none"
    value = f"{claim.value:z.3f}" if math.isfinite(claim.value) else "none"
    over = f"{claim.statistic}, {claim.reason.partition(';')[0]}"
    return (
        f"| {claim.number}. {about}: {claim.statement} | {over} | {value} | {interval} | {claim.side} {claim.threshold:g} | "
        f"**{claim.verdict}** |"
    )


if __name__ == "__main__":
    main()
