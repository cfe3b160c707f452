"""The command line: parses, calls the library, prints. Every error of the library is one line and exit status 2."""

from __future__ import annotations

import sys
from collections.abc import Sequence

import click

from .. import __version__
from ..errors import SensitometerError
from .machine import data, doctor
from .models import compare, measure
from .results import claims, export, figures
from .surveys import check, plan, run, status


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 120})
@click.version_option(__version__, prog_name="sensitometer")
def cli() -> None:
    """Measure how sensitive trained networks are to their inputs, and what that says about how well they generalise."""


for command in (run, plan, status, check, export, figures, claims, measure, compare, data, doctor):
    cli.add_command(command)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line and exit: 0 on success, 2 on bad input with one line that says what, 130 when interrupted."""
    try:
        status = cli.main(args=arguments, prog_name="sensitometer", standalone_mode=False)
    except click.exceptions.NoArgsIsHelpError as error:
        click.echo(error.format_message())
        status = 2
    except click.UsageError as error:
        path = error.ctx.command_path if error.ctx else "sensitometer"
        click.echo(f"{path}: {error.format_message()}", err=True)
        status = 2
    except (SensitometerError, OSError) as error:
        click.echo(f"sensitometer: {error}", err=True)
        status = 2
    except (click.Abort, KeyboardInterrupt):
        click.echo("sensitometer: interrupted; what was stored stays, and the same command goes on from there", err=True)
        status = 130
    sys.exit(status or 0)
