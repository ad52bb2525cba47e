"""The command line: `promptseg segment photo.jpg -t cat`, `promptseg models list`.

Exit codes: 0 done (finding nothing is an answer), 1 an image failed, 2 bad input.
Heavy imports happen inside functions, so that --help and --version answer at once.
"""

from __future__ import annotations

from typing import Annotated

import typer

from ... import __version__
from .app import app_command
from .concept import concept_app
from .evaluate import eval_command
from .everything import everything_command
from .models import models_app
from .reference_options import OrderedCommand
from .segment import segment_command

app = typer.Typer(
    help="Type what you want and get ranked masks.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
)
app.add_typer(concept_app, name="concept")
app.add_typer(models_app, name="models")


def main() -> None:
    """Run the command line; the console script's entry."""
    app()


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
) -> None:
    """Type what you want and get ranked masks."""


app.command("segment", cls=OrderedCommand)(segment_command)
app.command("app")(app_command)
app.command("eval")(eval_command)
app.command("everything")(everything_command)


if __name__ == "__main__":
    main()
