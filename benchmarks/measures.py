"""
The cost of a survey's measures beside its training: all stacks of the quick survey, trained and measured as a survey does.

    python benchmarks/measures.py

Networks of tanh are left out: their transitions are sampled. All is done in one process, on one core, a stack after another, so
that whatever else the machine does slows both down. Each stack is measured twice, and the second time counts: what the first time
needs may have to be compiled, once on a machine, which takes seconds.
"""

import argparse
import os
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from interleaved import _machine, record

from sensitometer import matmul

SURVEY = "quick"
TITLE = f"Measures of the {SURVEY} survey beside its training, piecewise-linear activations"


@dataclass
class Cost:
    """The networks of one width and depth: how many there are, and the seconds that they took, all together."""

    networks: int = 0
    seconds: dict[str, float] = field(default_factory=lambda: defaultdict(float))

    def row(self, name: str) -> str:
        """Lay it out, by network; the last column is the share of both measures of the training."""
        training, jacobians, transitions = (
            1e3 * self.seconds[part] / self.networks for part in ("training", "Jacobian norms", "transitions")
        )
        share = (jacobians + transitions) / training
        return f"| {name} | {self.networks} | {training:,.1f} | {jacobians:,.1f} | {transitions:,.1f} | {share:.2f} |"


def measure() -> dict[tuple[int, int], Cost]:
    """Train and measure the survey; by width and depth."""
    matmul.activate(matmul.choose().path)
    import torch
    from msgspec.structs import replace

    from sensitometer.data import load_dataset
    from sensitometer.survey import load_spec
    from sensitometer.survey.job.means import measure_sound
    from sensitometer.survey.runner import setup
    from sensitometer.survey.scheduling.division import configurations, divide
    from sensitometer.training import Schedule, train_stack

    torch.set_num_threads(1)
    torch.set_flush_denormal(True)
    spec, _ = load_spec(SURVEY)
    settings = setup(spec, Path(), "cpu")
    schedule = Schedule(**settings["schedule"])
    dataset = load_dataset(*spec.data.names)
    costs: dict[tuple[int, int], Cost] = defaultdict(Cost)
    for _, _, members in divide(spec, None, "cpu"):
        stack = configurations(spec, members)
        if stack[0].activation == "tanh":
            continue
        cost = costs[stack[0].width, stack[0].depth]
        start = time.perf_counter()
        trained = train_stack(stack, dataset, schedule=schedule)
        cost.seconds["training"] += time.perf_counter() - start
        cost.networks += len(stack)
        for part, left_out in (("Jacobian norms", "transitions"), ("transitions", "jacobian")):
            for _ in range(2):
                start = time.perf_counter()
                measure_sound(trained, dataset, replace(spec.measure, **{left_out: 0}))
                seconds = time.perf_counter() - start
            cost.seconds[part] += seconds
    return costs


def table(costs: Mapping[tuple[int, int], Cost]) -> str:
    """Lay the results out, and their sum."""
    rows = [
        "| width, depth | networks | training, ms a network | Jacobian norms | transitions | measures of training |",
        "|---|---|---|---|---|---|",
    ]
    rows += [costs[shape].row(f"{shape[0]}, {shape[1]}") for shape in sorted(costs)]
    total = Cost(sum(cost.networks for cost in costs.values()))
    for cost in costs.values():
        for part, seconds in cost.seconds.items():
            total.seconds[part] += seconds
    return "\n".join([*rows, total.row("all")])


def main() -> None:
    """Run the benchmark in a process that is set up as a survey's worker, and print its table."""
    parser = argparse.ArgumentParser(description=TITLE)
    parser.add_argument("--record", metavar="NAME", help="also write it to benchmarks/records/DATE-NAME.md")
    parser.add_argument("--serve", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if not arguments.serve:
        command = [sys.executable, *sys.argv, "--serve"]
        sys.exit(subprocess.run(command, env=matmul.worker_environment(os.environ), check=False).returncode)
    text = f"# {TITLE}\n\n{_machine('cpu')}\n\n{table(measure())}\n"
    print(text)
    if arguments.record:
        record(arguments.record, text, f"--record {arguments.record}")


if __name__ == "__main__":
    main()
