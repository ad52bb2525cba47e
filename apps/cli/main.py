"""The command line: `promptseg segment photo.jpg -t cat`, `promptseg models list`.

Exit codes: 0 done (finding nothing is an answer), 1 an image failed, 2 bad input, 70 a fault of
promptseg, 130 stopped by Ctrl-C, 143 by SIGTERM.
Heavy imports happen inside functions, so that --help and --version answer at once.
"""

from __future__ import annotations

import contextlib
import gc
import io
import logging
import os
import signal
import sys
import traceback
import warnings
from types import FrameType
from typing import Annotated

import typer
from rich.console import Console

from ... import __version__
from ..console import (
    EXIT_FAILED,
    EXIT_INTERRUPTED,
    EXIT_TERMINATED,
    Terminated,
    describe_error,
    exit_code,
    say_error,
)
from ..threads import set_up_threads
from .app import app_command
from .batch import batch_app
from .concept import concept_app
from .evaluate import eval_command
from .everything import everything_command
from .export import export_command
from .models import models_app
from .reference_options import OrderedCommand
from .segment import segment_command
from .serve import serve_app

_DEBUG_OPTION = "--debug"
_DEBUG_VARIABLE = "PROMPTSEG_DEBUG"

app = typer.Typer(
    help="Type what you want and get ranked masks.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.add_typer(batch_app, name="batch")
app.add_typer(concept_app, name="concept")
app.add_typer(models_app, name="models")
app.add_typer(serve_app, name="serve")


def main() -> None:
    """Run the command line; the console script's entry."""
    _prepare_process()
    code: int | str | None = 0
    try:
        app()
    except SystemExit as end:
        code = end.code
    except BrokenPipeError:  # whoever read the output has left
        code = EXIT_FAILED
        _drop_output()
    except KeyboardInterrupt as stop:
        say_error(Console(stderr=True), "stopped")
        code = EXIT_TERMINATED if isinstance(stop, Terminated) else EXIT_INTERRUPTED
    except Exception as error:
        code = _tell(error)
    code = _flush(code)
    gc.freeze()  # or the interpreter looks through all of torch for garbage before it ends
    sys.exit(code)


def _prepare_process() -> None:
    """Set up what belongs to the process, which the library leaves alone."""
    set_up_threads(os.environ)
    # What Pillow warns of in a photograph's metadata says nothing to a user.
    warnings.filterwarnings("ignore", module=r"PIL\..*")
    # Which rasters have no georeference is told by the formats that need one.
    warnings.filterwarnings("ignore", message="Dataset has no geotransform")
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    # As after Ctrl-C: what is written is complete, and the way on is told.
    signal.signal(signal.SIGTERM, _terminate)
    end = sys.argv.index("--") if "--" in sys.argv else len(sys.argv)
    if _DEBUG_OPTION in sys.argv[1:end]:
        sys.argv[1:end] = [word for word in sys.argv[1:end] if word != _DEBUG_OPTION]
        os.environ[_DEBUG_VARIABLE] = "1"
    if _debugs():
        handler = logging.StreamHandler()
        handler.setFormatter(logging.Formatter("%(name)s: %(message)s"))
        logger = logging.getLogger("promptseg")
        logger.addHandler(handler)
        logger.setLevel(logging.DEBUG)


def _terminate(number: int, frame: FrameType | None) -> None:
    raise Terminated


def _debugs() -> bool:
    return os.environ.get(_DEBUG_VARIABLE, "") not in ("", "0")


def _tell(error: Exception) -> int:
    """Print what nothing else caught, on one line; return the exit code."""
    if _debugs():
        traceback.print_exception(error)
    with contextlib.suppress(OSError):
        say_error(Console(stderr=True), describe_error(error))
    return exit_code(error)


def _flush(code: int | str | None) -> int | str | None:
    """Write what is still in the streams; return the exit code, 1 if that failed."""
    try:
        sys.stdout.flush()
    except BrokenPipeError:
        _drop_output()
        return code or EXIT_FAILED
    except (OSError, ValueError) as error:
        _drop_output()
        return code or _tell(error if isinstance(error, OSError) else OSError(str(error)))
    return code


def _drop_output() -> None:
    """Let what is still in stdout go nowhere, so that the end of the process is quiet."""
    with contextlib.suppress(OSError, ValueError, AttributeError):
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, sys.stdout.fileno())
        os.close(nowhere)


def _show_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"promptseg {__version__}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool,
        typer.Option("--version", callback=_show_version, is_eager=True, help="Show the version."),
    ] = False,
    debug: Annotated[
        bool,
        typer.Option(
            _DEBUG_OPTION,
            envvar=_DEBUG_VARIABLE,
            help="Show where an error comes from; anywhere on the line.",
        ),
    ] = False,
) -> None:
    """Type what you want and get ranked masks."""


app.command("segment", cls=OrderedCommand)(segment_command)
app.command("app")(app_command)
app.command("eval")(eval_command)
app.command("everything")(everything_command)
app.command("export")(export_command)


if __name__ == "__main__":
    main()
