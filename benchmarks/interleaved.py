"""
Compares programs on a machine that is busy with other work: each is a process of its own, and they measure in turns.

A benchmark calls `main(title, contenders, cases, table)`. For each case, each contender's process makes its workload once, and
then, ROUNDS times in alternation, times it. What is reported is the median over rounds; of ratios, that of those within a round.
"""

import argparse
import datetime
import importlib.metadata
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

from sensitometer import matmul

ROUNDS = 7
RECORDS = Path(__file__).parent / "records"

# Makes a case's workload, and returns what measures it once: units of work a second.
Workload = Callable[[Mapping[str, Any]], Callable[[], float]]


@dataclass(frozen=True)
class Contender:
    """A program under test: what it does with a case, and the matrix-product path that it runs on."""

    name: str
    workload: Workload
    path: str


def main(title: str, contenders: Sequence[Contender], cases: Sequence[Mapping[str, Any]], table: Callable[..., str]) -> None:
    """Run the benchmark and print `table(cases, rates)`, where `rates[case][contender]` is one number a round."""
    parser = argparse.ArgumentParser(description=title)
    parser.add_argument("--record", metavar="NAME", help="also write it to benchmarks/records/DATE-NAME.md")
    parser.add_argument("--serve", metavar="CONTENDER", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    by_name = {contender.name: contender for contender in contenders}
    if arguments.serve:
        _serve(by_name[arguments.serve], cases)
        return
    text = f"# {title}\n\n{_machine()}\n\n{table(cases, _measure(by_name, cases))}\n"
    print(text)
    if arguments.record:
        file = RECORDS / f"{datetime.date.today()}-{arguments.record}.md"
        command = f"    python benchmarks/{Path(sys.argv[0]).name} --record {arguments.record}\n"
        file.write_text(f"{text}\nMade by\n\n{command}")


def _measure(contenders: Mapping[str, Contender], cases: Sequence[Mapping[str, Any]]) -> list[dict[str, list[float]]]:
    environment = matmul.worker_environment(os.environ)
    with ExitStack() as stack:
        processes = {
            name: stack.enter_context(
                subprocess.Popen(
                    [sys.executable, sys.argv[0], "--serve", name],
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    text=True,
                    env=environment,
                )
            )
            for name in contenders
        }
        rates = []
        for case in range(len(cases)):
            rounds = [{name: _ask(process, case) for name, process in processes.items()} for _ in range(ROUNDS + 1)]
            # The first round makes the workloads and warms the caches up.
            rates.append({name: [one[name] for one in rounds[1:]] for name in processes})
    return rates


def _ask(process: "subprocess.Popen[str]", case: int) -> float:
    assert process.stdin is not None and process.stdout is not None
    print(case, file=process.stdin, flush=True)
    answer = process.stdout.readline()
    if not answer:
        raise SystemExit("a contender ended before it had answered; its error is above")
    return float(json.loads(answer))


def _serve(contender: Contender, cases: Sequence[Mapping[str, Any]]) -> None:
    matmul.activate(contender.path)
    import torch

    torch.set_num_threads(1)
    current, measure = None, None
    for line in sys.stdin:
        if int(line) != current:
            current = int(line)
            measure = contender.workload(cases[current])
        assert measure is not None
        print(json.dumps(measure()), flush=True)


def ratio(rates: Mapping[str, Sequence[float]], over: str, under: str) -> float:
    """Return the median over rounds of one contender's rate over another's."""
    return median(a / b for a, b in zip(rates[over], rates[under], strict=True))


def peak(case: Mapping[str, Any]) -> Callable[[], float]:
    """Multiply 1024 x 1024 matrices on the path that ours runs on; FLOP/s."""
    import torch

    a, b, c = (torch.randn(1024, 1024) for _ in range(3))

    def measure() -> float:
        start = time.perf_counter()
        for _ in range(10):
            torch.mm(a, b, out=c)
        return 10 * 2 * 1024**3 / (time.perf_counter() - start)

    return measure


def _machine() -> str:
    choice = matmul.choose()
    return (
        f"{datetime.date.today()}, {matmul.processor()}, {os.cpu_count()} processors, one core for each contender.\n"
        f"Sensitometer {importlib.metadata.version('sensitometer')}, torch {importlib.metadata.version('torch')}, "
        f"matrix products: {choice.path} ({choice.reason})."
    )
