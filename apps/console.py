"""What the commands share: errors on one line, exit codes, a progress bar."""

from __future__ import annotations

import re

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

from ..models.errors import CheckpointError, InputError, ModelNotFoundError, PromptsegError

EXIT_FAILED = 1
EXIT_BAD_INPUT = 2
# A fault of promptseg itself; EX_SOFTWARE of sysexits.h.
EXIT_FAULT = 70
# After Ctrl-C and SIGTERM, as shells have it.
EXIT_INTERRUPTED = 130
EXIT_TERMINATED = 143

# What a terminal obeys instead of showing: controls, escape sequences, changes of direction.
_OBEYED = re.compile(r"[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069]")


class Terminated(KeyboardInterrupt):
    """SIGTERM came: the run stops as it does after Ctrl-C."""


class Bar:
    """A progress bar on stderr if that is a terminal; hidden while something is printed."""

    def __init__(
        self, total: int, console: Console | None, description: str = "segmenting"
    ) -> None:
        self.progress: Progress | None = None
        if console is None or not console.is_terminal:
            return
        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
        # Without the redirections of stdout: they would send --json's lines to stderr.
        self.progress = Progress(
            *columns, console=console, transient=True, redirect_stdout=False, redirect_stderr=False
        )
        self.task = self.progress.add_task(description, total=total)

    def __enter__(self) -> Bar:
        return self

    def __exit__(self, *_: object) -> None:
        self.hide()

    def show(self) -> None:
        """Show the bar."""
        if self.progress is not None:
            self.progress.start()

    def hide(self) -> None:
        """Hide the bar until it is shown again."""
        if self.progress is not None:
            self.progress.stop()

    def advance(self) -> None:
        """Count one more as done."""
        if self.progress is not None:
            self.progress.advance(self.task)

    def update(self, done: int, total: int) -> None:
        """Show how many of how many are done."""
        if self.progress is not None:
            self.progress.update(self.task, completed=done, total=total)


def say_error(console: Console, text: str) -> None:
    """Print an error, on as few lines as it has."""
    shown = "\n".join(visible(line) for line in text.split("\n"))
    console.print(f"error: {shown}", style="red", highlight=False, markup=False, soft_wrap=True)


def describe_error(error: Exception) -> str:
    """Return what went wrong, on one line."""
    text = " ".join(str(error).split()) or type(error).__name__
    if isinstance(error, MemoryError):
        return "out of memory; scale the image down"
    if isinstance(error, PromptsegError):
        return text
    text = f"{type(error).__name__}: {text}"
    if not is_fault(error):
        return text
    return (
        f"{text}; this is a fault of promptseg: please report it with the output of the same "
        "command with --debug"
    )


def is_fault(error: Exception) -> bool:
    """Return whether an error is neither of the input nor of the system nor of torch."""
    outer = (PromptsegError, OSError, RuntimeError, MemoryError, ImportError)
    return not isinstance(error, outer)


def exit_code(error: Exception) -> int:
    """Return the exit code: 2 if other input would help, 70 for a fault of promptseg, else 1."""
    if is_fault(error):
        return EXIT_FAULT
    bad_input = isinstance(error, (InputError, ModelNotFoundError, CheckpointError))
    return EXIT_BAD_INPUT if bad_input else EXIT_FAILED


def printable(text: str) -> str:
    """Return text that any stream can encode: bytes of a path that are not UTF-8 become "?"."""
    return text.encode("utf-8", "replace").decode("utf-8")


def visible(text: str) -> str:
    r"""Return text for a terminal: what it would obey is escaped, as in "\x1b[2J"."""
    return _OBEYED.sub(lambda found: ascii(found[0])[1:-1], printable(text))
