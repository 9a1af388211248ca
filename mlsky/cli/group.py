"""The command ``mlsky`` itself: exit status and error messages."""

from __future__ import annotations

import contextlib
import signal
import sys
import threading
from collections.abc import Iterator, Sequence

import click

from mlsky._version import __version__
from mlsky.errors import MlskyError

__all__ = ["cli", "main"]

EXIT_BAD_INPUT = 2
EXIT_INTERRUPTED = 128 + signal.SIGINT
EXIT_TERMINATED = 128 + signal.SIGTERM


class Sectioned(click.Group):
    """A group whose help lists its commands by section, in the order in which they were added."""

    def __init__(self, *arguments, **options) -> None:
        super().__init__(*arguments, **options)
        self.sections: dict[str, list[str]] = {}

    def add_section(self, title: str, *commands: click.Command) -> None:
        """Add commands under a title."""
        self.sections[title] = [str(command.name) for command in commands]
        for command in commands:
            self.add_command(command)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        limit = formatter.width - 6 - max(map(len, self.commands))
        for title, names in self.sections.items():
            with formatter.section(title):
                formatter.write_dl(
                    [(name, self.commands[name].get_short_help_str(limit)) for name in names]
                )


@click.group(cls=Sectioned, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="mlsky")
@click.option("--debug", is_flag=True, help="Show the traceback of an error.")
@click.option("-q", "--quiet", is_flag=True, help="Show no progress.")
@click.option("-v", "--verbose", is_flag=True, help="Show what is logged, too.")
@click.pass_context
def cli(ctx: click.Context, debug: bool, quiet: bool, verbose: bool) -> None:
    """Hundreds of correlated, non-Gaussian mock microwave skies.

    Exit status: 0 done; 1 a bug of mlsky; 2 wrong input or a file that cannot be used, in one line
    on stderr; 130 interrupted; 143 ended by a batch system.
    """
    if quiet and verbose:
        raise click.UsageError("--quiet with --verbose: give one of the two")
    ctx.meta["mlsky.debug"] = debug
    ctx.meta["mlsky.quiet"] = quiet
    if verbose:
        import logging

        logging.basicConfig(level=logging.INFO, format="mlsky: %(message)s")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit status."""
    debug = "--debug" in (sys.argv[1:] if arguments is None else arguments)
    try:
        with _stop_on_sigterm():
            cli.main(args=arguments, prog_name="mlsky", standalone_mode=False)
    except (click.Abort, KeyboardInterrupt) as error:
        return _fail(str(error) or "interrupted, nothing was kept", EXIT_INTERRUPTED)
    except click.exceptions.NoArgsIsHelpError as error:
        click.echo(error.ctx.get_help(), err=True)
        return EXIT_BAD_INPUT
    except click.ClickException as error:
        return _fail(error.format_message(), EXIT_BAD_INPUT)
    except (ValueError, MlskyError) as error:
        if debug:
            raise
        return _fail(str(error), EXIT_BAD_INPUT)
    except OSError as error:  # of the file system, such as a full disk or missing permission
        if debug or error.strerror is None:
            raise
        where = f"{error.filename}: " if error.filename else ""
        return _fail(f"{where}{error.strerror}", EXIT_BAD_INPUT)
    return 0


def _fail(message: str, status: int) -> int:
    click.echo(f"mlsky: error: {' '.join(message.split())}", err=True)
    return status


@contextlib.contextmanager
def _stop_on_sigterm() -> Iterator[None]:
    """Handle SIGTERM, as from a batch system, like Ctrl-C, so that no files are left."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def stop(number, frame):
        raise SystemExit(EXIT_TERMINATED)

    before = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
