"""A worker that trains nothing: it answers as the real one does, and does what a network's width says."""

import contextlib
import os
import signal
import sys
import time
from pathlib import Path

from sensitometer.children import pipes, receive, send
from sensitometer.configuration import Configuration

# Widths that stand for accidents; all others are trained at once.
DIES, TOO_LARGE, EXITS, REFUSES, SLOW, NOISY = 9001, 9002, 9003, 9004, 9005, 9006


def answer(stack):
    """Return what came of a stack."""
    width = stack[0]["width"]
    if width == DIES:
        os.kill(os.getpid(), signal.SIGKILL)
    if width == EXITS:
        sys.exit(3)
    if width == TOO_LARGE and len(stack) > 1:
        return {"lost": f"MemoryError: no room for {len(stack)} networks"}
    if width == REFUSES:
        return {"error": "cannot write to nowhere", "kind": "StoreError"}
    if width == SLOW:
        time.sleep(0.3)
    if width == NOISY:
        sys.stdout.write("what a library prints\n")
        sys.stdout.flush()
    of = {"state": "unfitted", "gap": 0.25, "host": str(os.getpid()), "device": os.environ.get("CUDA_VISIBLE_DEVICES")}
    return {"rows": [{"id": Configuration(**one).id, **one, **of} for one in stack], "seconds": 0.5}


def main():
    requests, answers = pipes()
    setup = receive(requests)
    if "refuse" in setup:
        send(answers, {"error": setup["refuse"], "kind": "DataError"})
        return
    # One that has died once may be told not to start again.
    marker = setup.get("once")
    if marker and Path(marker).exists():
        sys.exit(4)
    if marker:
        Path(marker).touch()
    # Or to die so many times first.
    deaths = setup.get("deaths")
    if deaths and Path(deaths).stat().st_size:
        os.truncate(deaths, Path(deaths).stat().st_size - 1)
        os.kill(os.getpid(), signal.SIGKILL)
    send(answers, {"rows": [], "seconds": 0.0})
    with contextlib.suppress(EOFError):
        while True:
            send(answers, answer(receive(requests)["configurations"]))


if __name__ == "__main__":
    main()
