"""The table of commands, and how their errors end the process."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable, Sequence
from typing import Annotated

import typer
from typer.exceptions import Abort, Exit, TyperException

from eventd import __version__
from eventd.cli.dead_letters import dead_letters
from eventd.cli.deploy_demo import deploy_demo
from eventd.cli.doctor import doctor
from eventd.cli.failure import INTERRUPTED, Failure
from eventd.cli.invoke import invoke
from eventd.cli.logs import logs
from eventd.cli.publish import publish
from eventd.cli.serve import serve
from eventd.cli.settings import settings
from eventd.cli.status import status
from eventd.config import ConfigError

_HELP = """
A self-hosted Function Compute: files, messages, log lines, timers and HTTP requests run functions.

Start a daemon, deploy the demonstration, look at it:

  eventd serve --data data

  eventd deploy-demo

  eventd status --watch

The other commands find the daemon by ./data (or --data DIR, EVENTD_DATA), or by --endpoint URL
(EVENTD_ENDPOINT) with EVENTD_ACCESS_KEY_ID and EVENTD_ACCESS_KEY_SECRET.

Exit codes: 0 done, 1 the function failed, 2 wrong usage or settings, 3 no daemon answers,
4 the daemon refused, 74 the disk failed, 130 interrupted.
"""

_COMMANDS: tuple[Callable[..., None], ...] = (
    serve,
    invoke,
    logs,
    status,
    dead_letters,
    doctor,
    deploy_demo,
    publish,
    settings,
)

app = typer.Typer(
    name="eventd",
    help=_HELP,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)


def _show_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"eventd {__version__}")
        raise Exit


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Show it.")
    ] = False,
) -> None:
    pass


COMMAND_NAMES = tuple(command.__name__.replace("_", "-") for command in _COMMANDS)

for _name, _command in zip(COMMAND_NAMES, _COMMANDS, strict=True):
    app.command(_name)(_command)


def run(arguments: Sequence[str]) -> int:
    """Run one command line; its exit code. An error is one line on stderr."""
    command = typer.main.get_command(app)
    try:
        # Not command.main: it would turn a broken pipe into exit code 1.
        with command.make_context("eventd", list(arguments) or ["--help"]) as context:
            command.invoke(context)
    except Exit as end:
        return end.exit_code
    except (Abort, KeyboardInterrupt):
        # A second Ctrl-C would only make Python complain that it was interrupted at exit.
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        return INTERRUPTED
    except BrokenPipeError:
        # The reader (head, less) has had enough; Python must not complain at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except TyperException as error:
        _complain(error.format_message())
        return error.exit_code
    except Failure as error:
        _complain(str(error))
        return error.exit_code
    except ConfigError as error:
        _complain(str(error))
        return Failure.exit_code
    return 0


def _complain(message: str) -> None:
    sys.stdout.flush()
    print(f"eventd: {message}", file=sys.stderr)
