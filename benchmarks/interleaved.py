"""
Compares programs on a machine that is busy with other work: each is a process of its own, and they measure in turns.

A benchmark calls `main(title, contenders, cases, table)`. For each case, each contender's process makes its workload once, and
then, ROUNDS times in alternation, times it. What is reported is the median over rounds; of ratios, that of those within a round.
With `twins`, a second process of one contender is timed beside the first, in a turn of its own.
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
TWINS = "two at once"
RECORDS = Path(__file__).parent / "records"

# Makes a case's workload, and returns what measures it once: units of work a second, or these as `rate` beside other numbers.
Workload = Callable[[Mapping[str, Any]], Callable[[], float | dict[str, float]]]


@dataclass(frozen=True)
class Contender:
    """A program under test: what it does with a case, and the matrix-product path that it runs on."""

    name: str
    workload: Workload
    path: str


def main(
    title: str,
    contenders: Sequence[Contender],
    cases: Sequence[Mapping[str, Any]],
    table: Callable[..., str],
    twins: str | None = None,
    devices: Sequence[str] = ("cpu",),
) -> None:
    """
    Run the benchmark and print `table(cases, rates)`, where `rates[case][contender]` is one number a round.

    A case may name the only `contenders` that it is for. What a contender has measured beside its rate is in
    `rates[case]["contender what"]`. `twins` names the contender that is also timed twice at once: the sum of
    both rates is then its rate as TWINS.
    """
    parser = argparse.ArgumentParser(description=title)
    parser.add_argument("--record", metavar="NAME", help="also write it to benchmarks/records/DATE-NAME.md")
    parser.add_argument("--device", default="cpu", choices=devices, help="default: cpu")
    parser.add_argument("--first", type=int, metavar="N", help="only the first N cases")
    parser.add_argument("--serve", metavar="CONTENDER", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    cases = [{"device": arguments.device, **case} for case in cases][: arguments.first]
    by_name = {contender.name: contender for contender in contenders}
    if arguments.serve:
        _serve(by_name[arguments.serve], cases)
        return
    rates = _measure(by_name, cases, arguments.device, twins if arguments.device == "cpu" else None)
    text = f"# {title}\n\n{_machine(arguments.device)}\n\n{table(cases, rates)}\n"
    print(text)
    if arguments.record:
        record(arguments.record, text, " ".join(sys.argv[1:]))


def record(name: str, text: str, arguments: str) -> None:
    """Write what a benchmark has printed to its records, with the arguments that made it."""
    command = f"    python benchmarks/{Path(sys.argv[0]).name} {arguments}\n"
    (RECORDS / f"{datetime.date.today()}-{name}.md").write_text(f"{text}\nMade by\n\n{command}")


def _measure(
    contenders: Mapping[str, Contender], cases: Sequence[Mapping[str, Any]], device: str, twins: str | None
) -> list[dict[str, list[float]]]:
    environment = matmul.worker_environment(os.environ)
    started = {name: name for name in contenders} | ({TWINS: twins} if twins else {})
    with ExitStack() as stack:
        processes = {
            name: stack.enter_context(
                subprocess.Popen(
                    [sys.executable, sys.argv[0], *sys.argv[1:], "--serve", served],
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    text=True,
                    env=environment,
                )
            )
            for name, served in started.items()
        }
        rates = []
        for place, case in enumerate(cases):
            names = [name for name in processes if name in case.get("contenders", processes)]
            rounds = [_turns(processes, names, twins, place) for _ in range(ROUNDS + 1)]
            # The first round makes the workloads and warms the caches up.
            rates.append({name: [one[name] for one in rounds[1:]] for name in rounds[0]})
            print(f"{place + 1}/{len(cases)}", {name: median(rate) for name, rate in rates[-1].items()}, file=sys.stderr)
    return rates


def _turns(
    processes: "Mapping[str, subprocess.Popen[str]]", names: Sequence[str], twins: str | None, case: int
) -> dict[str, float]:
    """Have each contender measure once, and return what `main` says."""
    found: dict[str, float] = {}
    for name in names:
        together = [processes[name], processes[twins]] if twins and name == TWINS else [processes[name]]
        for process in together:
            assert process.stdin is not None
            print(case, file=process.stdin, flush=True)
        answers = [_answer(process) for process in together]
        found[name] = sum(answer.pop("rate") for answer in answers)
        found |= {f"{name} {what}": value for what, value in answers[0].items()}
    return found


def _answer(process: "subprocess.Popen[str]") -> dict[str, float]:
    assert process.stdout is not None
    answer = process.stdout.readline()
    if not answer:
        raise SystemExit("a contender ended before it had answered; its error is above")
    found = json.loads(answer)
    return found if isinstance(found, dict) else {"rate": found}


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
    """Multiply 1024 x 1024 matrices on the path that ours runs on, 8192 x 8192 on a GPU, in the case's `dtype`; FLOP/s."""
    import torch

    cuda = case["device"].startswith("cuda")
    size, times = (8192, 20) if cuda else (1024, 10)
    dtype = getattr(torch, case.get("dtype", "float32"))
    a, b, c = (torch.randn(size, size, device=case["device"], dtype=dtype) for _ in range(3))

    def measure() -> float:
        start = time.perf_counter()
        for _ in range(times):
            torch.mm(a, b, out=c)
        if cuda:
            torch.cuda.synchronize()
        return times * 2 * size**3 / (time.perf_counter() - start)

    return measure


def _machine(device: str) -> str:
    choice = matmul.choose()
    if device != "cpu":
        import torch

        return (
            f"{datetime.date.today()}, {torch.cuda.get_device_name(device)}, {matmul.processor()}.\n"
            f"Sensitometer {importlib.metadata.version('sensitometer')}, torch {torch.__version__}, full float32."
        )
    return (
        f"{datetime.date.today()}, {matmul.processor()}, {os.cpu_count()} processors, one core for each contender.\n"
        f"Sensitometer {importlib.metadata.version('sensitometer')}, torch {importlib.metadata.version('torch')}, "
        f"matrix products: {choice.path} ({choice.reason})."
    )
