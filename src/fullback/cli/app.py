"""The ``fullback`` command."""

from __future__ import annotations

import io
import sys

import typer

from fullback.cli.bench import bench
from fullback.cli.check import check
from fullback.cli.data import data
from fullback.cli.diagnose import diagnose
from fullback.cli.evaluate import evaluate
from fullback.cli.explain import explain
from fullback.cli.explore import explore
from fullback.cli.interrupt import INTERRUPTED
from fullback.cli.output import USAGE, drop_output, fail, report
from fullback.cli.predict import predict
from fullback.cli.program import program
from fullback.cli.rate import rate
from fullback.cli.runs import runs
from fullback.cli.serve import serve
from fullback.cli.summary import summary
from fullback.cli.sweep import sweep
from fullback.cli.train import train
from fullback.cli.usage import UsageError, usage_message
from fullback.cli.warmup import warmup

app = typer.Typer(
    name="fullback",
    rich_markup_mode="markdown",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.command()(train)
app.command()(rate)
app.command()(runs)
app.command()(sweep)

app.command()(data)
app.command("eval")(evaluate)
app.command()(predict)
app.command()(summary)
app.command()(bench)
app.command()(warmup)
app.command()(program)
app.command()(check)
app.command()(diagnose)
app.command()(explain)
app.command()(explore)
app.command()(serve)


@app.callback(invoke_without_command=True)
def fullback(
    context: typer.Context,
    show: bool = typer.Option(False, "--version", help="Show the version and exit.", is_eager=True),
) -> None:
    """Train small convolutional networks on a CPU, and see their backward pass.

    `fullback train` trains the network of two conv-ReLU-pool stages and two dense layers on the
    built-in digits, in a few seconds and without a download.
    """
    if show:
        from fullback import __version__

        typer.echo(f"fullback {__version__}")
        raise typer.Exit
    if context.invoked_subcommand is None:
        typer.echo(context.get_help(), nl=False)
        raise typer.Exit(USAGE)


def run() -> None:
    """Run the command that ``sys.argv`` gives, and exit."""
    if isinstance(sys.stdout, io.TextIOWrapper):  # not every terminal takes every character
        sys.stdout.reconfigure(errors="backslashreplace")
    try:
        code = app(prog_name="fullback", standalone_mode=False)
        _flush()
    except UsageError as error:
        command = error.ctx.command_path if error.ctx else "fullback"
        message = usage_message(error)
        fail(f"{message}{' See' if message.endswith('?') else '; see'} {command} --help")
        code = USAGE
    except typer.Abort:
        code = INTERRUPTED
    except (OSError, MemoryError, RecursionError, UnicodeError) as error:
        code = report(error)
    sys.exit(code)


def _flush() -> None:
    """Write what standard output still holds, while an error can be reported.

    Raises
    ------
    OSError
        It cannot be written: the disk is full, or what reads it has gone.
    """
    if sys.stdout is None:
        return
    try:
        sys.stdout.flush()
    except OSError:
        drop_output(sys.stdout)
        raise
