"""
Child processes: how they are started, and how they are spoken to.

A child imports nothing from the current folder, where a file `random.py` may lie: this file is the program that it runs, with
`-P`, and it loads the package from the folder that it lies in itself. Parent and child speak over two pipes of their own, because
anything may print on the standard output: `sitecustomize`, or MKL when `MKL_VERBOSE` is set. Messages are MessagePack, which
unlike JSON has infinity and nan, each after a magic word and its length.
"""

import contextlib
import os
import select
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, Self

if TYPE_CHECKING:
    from types import TracebackType

MAGIC = b"\x93sensitometer\n"
# Bytes of a length; and the most that a message may have: a stack of a thousand networks has a megabyte.
LENGTH, MOST = 4, 2**28


class NoMessageError(Exception):
    """The bytes that came over a pipe are no message of ours."""


def command(module: str, *arguments: str) -> tuple[str, ...]:
    """Return the command of a child process that calls `main` of a module of this package, such as `matmul`."""
    # -P: neither the current folder nor that of the program is on the path of imports.
    return (sys.executable, "-P", str(Path(__file__).absolute()), module, *arguments)


def pipes() -> tuple[IO[bytes], IO[bytes]]:
    """Return the pipes of this child process, whose numbers end its arguments: that of requests, and that of answers."""
    numbers = [int(argument) for argument in sys.argv[-2:]]
    for number in numbers:
        os.set_inheritable(number, False)
    return os.fdopen(numbers[0], "rb"), os.fdopen(numbers[1], "wb")


def send(stream: IO[bytes], message: Any) -> None:
    """Write a message; BrokenPipeError if nobody reads, NoMessageError if it is too long, TypeError if it cannot be encoded."""
    import msgspec

    content = msgspec.msgpack.encode(message)
    if len(content) > MOST:
        raise NoMessageError(f"a message of {len(content):,} bytes; expected at most {MOST:,}")
    stream.write(MAGIC + len(content).to_bytes(LENGTH, "big") + content)
    stream.flush()


def receive(stream: IO[bytes]) -> Any:
    """Return the next message; EOFError if the other side has ended, even within one; NoMessageError if it is none."""
    import msgspec

    head = _read(stream, len(MAGIC) + LENGTH)
    length = int.from_bytes(head[len(MAGIC) :], "big")
    if not head.startswith(MAGIC) or length > MOST:
        raise NoMessageError(f"expected a message of at most {MOST:,} bytes; got one that begins with {head!r}")
    try:
        return msgspec.msgpack.decode(_read(stream, length))
    except msgspec.DecodeError as error:
        raise NoMessageError(f"expected a message; got one that is damaged: {error}") from error


def _read(stream: IO[bytes], count: int) -> bytes:
    content = stream.read(count)
    if len(content) < count:
        raise EOFError
    return content


class Child:
    """
    A child process, spoken to over pipes of its own; as a context manager, it ends with the block.

    Parameters
    ----------
    program
        The command; the numbers of the pipes are appended to it.
    environment
        The variables of the process.
    quiet
        Whether what it prints is dropped; otherwise all of it goes to the standard error.
    """

    def __init__(self, program: Sequence[str], environment: Mapping[str, str], *, quiet: bool = False) -> None:
        requests, self._requests = os.pipe()
        self._answers, answers = os.pipe()
        output = 2 if not quiet and _is_open(2) else subprocess.DEVNULL
        try:
            self._process = subprocess.Popen(
                [*program, str(requests), str(answers)],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                env=environment,
                pass_fds=(requests, answers),
            )
        except BaseException:
            for number in (self._requests, self._answers):
                os.close(number)
            raise
        finally:
            # These ends are the child's alone: when it ends the pipes end, too.
            os.close(requests)
            os.close(answers)
        self._requests_stream, self._answers_stream = os.fdopen(self._requests, "wb"), os.fdopen(self._answers, "rb")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: "TracebackType | None") -> None:
        self.end()

    def tell(self, message: Any) -> None:
        """Send a message; one to a process that has ended is lost, as `answer` tells."""
        with contextlib.suppress(BrokenPipeError):
            send(self._requests_stream, message)

    def answer(self, seconds: float | None = None) -> Any:
        """
        Return the next message; EOFError if the process has ended, NoMessageError if it sent something else.

        TimeoutError if none has begun after so many `seconds`; without them it is waited for.
        """
        if seconds is not None and not select.select([self._answers_stream], [], [], seconds)[0]:
            raise TimeoutError
        return receive(self._answers_stream)

    @property
    def has_ended(self) -> bool:
        """Whether the process has ended."""
        return self._process.poll() is not None

    @property
    def was_killed(self) -> bool:
        """Wait for the process to end, and return whether a signal ended it."""
        return self._process.wait() < 0

    def ending(self) -> str:
        """Wait for the process to end, and say how it did, as in `was ended by signal 9`."""
        status = self._process.wait()
        return f"was ended by signal {-status}" if status < 0 else f"ended with status {status}"

    def end(self) -> None:
        """End the process, if it has not ended, and close its pipes."""
        self._process.kill()
        self._process.wait()
        for pipe in (self._requests_stream, self._answers_stream):
            # Requests that the process did not live to read are still in the buffer.
            with contextlib.suppress(BrokenPipeError):
                pipe.close()


def open_standard_streams() -> None:
    """Open the null device in the place of standard streams that are closed: the next file opened would get their number."""
    for number, flags in ((0, os.O_RDONLY), (1, os.O_WRONLY), (2, os.O_WRONLY)):
        if not _is_open(number):
            null = os.open(os.devnull, flags)
            if null != number:
                os.dup2(null, number)
                os.close(null)


def _is_open(number: int) -> bool:
    try:
        os.fstat(number)
    except OSError:
        return False
    return True


def _main() -> None:
    """Load the package that this file lies in, and call `main` of the module that the first argument names."""
    # Ctrl-C reaches every process of the terminal; the parent decides what becomes of its children.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    open_standard_streams()
    import importlib.util

    folder = Path(__file__).parent
    spec = importlib.util.spec_from_file_location(folder.name, folder / "__init__.py", submodule_search_locations=[str(folder)])
    assert spec is not None and spec.loader is not None
    package = importlib.util.module_from_spec(spec)
    sys.modules[folder.name] = package
    spec.loader.exec_module(package)
    importlib.import_module(f"{folder.name}.{sys.argv[1]}").main()


if __name__ == "__main__":
    _main()
