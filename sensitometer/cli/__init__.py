"""The command line: parses, calls the library, prints. Every error that a user can cause is one line and exit status 2."""

from __future__ import annotations

import contextlib
import io
import os
import sys
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, TextIO

import click

from .. import __version__
from ..children import open_standard_streams
from ..errors import SensitometerError, one_line
from .machine import data, doctor
from .models import compare, measure
from .printing import say
from .results import claims, export, figures
from .surveys import check, plan, run, status


class _ForeignExitError(Exception):
    """Code that is not of this package ended the program."""


class _NobodyReadsError(Exception):
    """Whoever read the output has ended, as `head` does."""


class _Commands(click.Group):
    """The group of commands; click would end the program by itself for these two, with 1 or as if all were well."""

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command."""
        try:
            return super().invoke(ctx)
        except BrokenPipeError as error:
            raise _NobodyReadsError from error
        except SystemExit as error:
            raise _ForeignExitError(f"SystemExit({error.code!r})") from error


@click.group(cls=_Commands, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 120})
@click.version_option(__version__, prog_name="sensitometer")
def cli() -> None:
    """Measure how sensitive trained networks are to their inputs, and what that says about how well they generalise."""


for command in (run, plan, status, check, export, figures, claims, measure, compare, data, doctor):
    cli.add_command(command)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line and exit: 0 on success, 2 on bad input with one line that says what, 130 when interrupted."""
    with _surroundings():
        status = _status(arguments)
    sys.exit(status)


def _status(arguments: Sequence[str] | None) -> int:
    """Run a command and return the exit status; errors are caught by kind, and all others are faults of this package."""
    program = "sensitometer"
    try:
        # The libraries below end a process that has none, with messages of their own.
        Path.cwd()
        status = cli.main(args=arguments, prog_name=program, standalone_mode=False)
        # The rest of the buffer may not fit on the disk.
        sys.stdout.flush()
        return int(status or 0)
    except click.exceptions.NoArgsIsHelpError as error:
        say(*error.format_message().splitlines())
        return 2
    except click.ClickException as error:
        context = getattr(error, "ctx", None)
        line = f"{context.command_path if context else program}: {error.format_message()}"
    except (click.Abort, KeyboardInterrupt):
        say(f"{program}: interrupted; what was stored stays, and the same command goes on from there", err=True)
        return 130
    except (_NobodyReadsError, BrokenPipeError, SystemExit):
        # The rest of the output goes nowhere.
        with contextlib.suppress(OSError):  # it is none of the system's
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 2
    except SensitometerError as error:
        line = f"{program}: {error}"
    except OSError as error:
        line = f"{program}: {_about(error)}"
    except UnicodeError as error:
        line = f"{program}: a text or a name cannot be read or written: {one_line(error)}"
    except MemoryError as error:
        line = f"{program}: the memory is too small: {one_line(error)}"
    except _ForeignExitError as error:
        line = f"{program}: code of a model or of data ended the program: {error}"
    say(line, err=True)
    return 2


def _about(error: OSError) -> str:
    """Return what a message says of an error of the operating system."""
    try:
        Path.cwd()
    except OSError as gone:
        return f"there is no current folder, it has been removed: go to another one ({gone.strerror})"
    said = error.strerror or one_line(error)
    return f"{os.fsdecode(error.filename)}: {said}" if isinstance(error.filename, str | bytes) else said


@contextlib.contextmanager
def _surroundings() -> Iterator[None]:
    """
    Print wherever this is printed to, and draw to files alone.

    A closed standard output or standard error is the null device. What cannot be written to the standard error, which may be on a
    disk that is full, is lost: it is no reason to stop.
    """
    open_standard_streams()
    with contextlib.ExitStack() as stack:
        if sys.stdin is None:
            sys.stdin = stack.enter_context(Path(os.devnull).open(encoding="utf-8"))
        if sys.stdout is None:
            sys.stdout = stack.enter_context(Path(os.devnull).open("w", encoding="utf-8"))
        elif isinstance(sys.stdout, io.TextIOWrapper):
            # In another encoding than UTF-8 some characters are not to be had.
            sys.stdout.reconfigure(errors="backslashreplace")
        if sys.stderr is None or sys.stderr is sys.__stderr__:
            sys.stderr = _standard_error()
        stack.enter_context(warnings.catch_warnings())
        warnings.showwarning = _print_warning
        # A notebook sets it for the processes that it starts, too, where its drawing cannot be had.
        os.environ["MPLBACKEND"] = "agg"
        yield


class _Unfailing(io.FileIO):
    """A file that forgets what cannot be written."""

    def write(self, content: bytes) -> int:  # type: ignore[override]
        """Write, or do as if it had been written."""
        try:
            return super().write(content)
        except OSError:
            return len(content)


def _standard_error() -> TextIO:
    encoding = getattr(sys.__stderr__, "encoding", None) or "utf-8"
    raw = _Unfailing(2, "w", closefd=False)
    buffered = io.BufferedWriter(raw)  # type: ignore[type-var]
    return io.TextIOWrapper(buffered, encoding, errors="backslashreplace", line_buffering=True)


def _print_warning(message: Warning | str, *_: object, **__: object) -> None:
    say(f"sensitometer: warning: {one_line(message) if isinstance(message, Warning) else message}", err=True)
