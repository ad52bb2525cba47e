"""What the commands share: the way to a preset, errors on one line, a progress bar.

Heavy imports happen inside functions, so that --help and --version answer at once.
"""

from __future__ import annotations

import hashlib
import re
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

from ..models.errors import CheckpointError, InputError, ModelNotFoundError, PromptsegError

if TYPE_CHECKING:
    from ..pipeline.pipeline import Pipeline

EXIT_FAILED = 1
EXIT_BAD_INPUT = 2
# What a terminal's user gets after Ctrl-C.
EXIT_INTERRUPTED = 130


def load_pipeline(
    preset: str,
    device: str,
    strategy: str | None = None,
    dtype: str = "fp32",
    weights: Path | None = None,
) -> Pipeline:
    """Load a preset; where torch gets imported.

    Raises:
        InputError: The device is unknown or not there, or cannot compute in the dtype; or there
            is no such folder of weights.
        ModelNotFoundError: The preset or the strategy is unknown.
    """
    _check_device(device)
    if weights is not None and not weights.is_dir():
        raise InputError(f"--weights: {str(weights)!r} is no folder; give one that holds weights")
    from ..pipeline.presets.load import load

    return load(preset, device=device, dtype=dtype, weights=weights, strategy=strategy)


def weights_fingerprint() -> str:
    """SHA-256 of the weight files that come with the package, by name and content."""
    from ..pipeline.presets.pocket import WEIGHTS

    digest = hashlib.sha256()
    for path in sorted(WEIGHTS.glob("*.safetensors")):
        digest.update(path.name.encode() + b"\0" + hashlib.sha256(path.read_bytes()).digest())
    return digest.hexdigest()


class Bar:
    """A progress bar on stderr, if that is a terminal; hidden while something is printed."""

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
        """Take the bar away until it is shown again."""
        if self.progress is not None:
            self.progress.stop()

    def advance(self) -> None:
        """Count one more as done."""
        if self.progress is not None:
            self.progress.advance(self.task)

    def update(self, done: int, total: int) -> None:
        """Show how many are done of how many there are."""
        if self.progress is not None:
            self.progress.update(self.task, completed=done, total=total)


def say_error(console: Console, text: str) -> None:
    """Print an error, on as few lines as it has."""
    console.print(
        f"error: {printable(text)}", style="red", highlight=False, markup=False, soft_wrap=True
    )


def describe_error(error: Exception) -> str:
    """Return what went wrong, on one line."""
    text = " ".join(str(error).split()) or type(error).__name__
    if isinstance(error, MemoryError):
        return "out of memory; scale the image down"
    return text if isinstance(error, PromptsegError) else f"{type(error).__name__}: {text}"


def exit_code(error: Exception) -> int:
    """Return the exit code of a failure: 2 if other input would do, else 1."""
    bad_input = isinstance(error, (InputError, ModelNotFoundError, CheckpointError))
    return EXIT_BAD_INPUT if bad_input else EXIT_FAILED


def _check_device(device: str) -> None:
    if not re.fullmatch(r"(cpu|mps|cuda|xpu)(:\d+)?", device):
        raise InputError(f"there is no device {device!r}; use cpu, cuda, cuda:0, mps or xpu")
    kind, _, index = device.partition(":")
    if kind == "cpu":
        return
    import torch

    backend = getattr(torch, kind)
    if not backend.is_available():
        raise InputError(f"no {kind} device can be used here; use --device cpu")
    if index and int(index) >= backend.device_count():
        raise InputError(
            f"there is no {device!r}; there are {backend.device_count()} {kind} devices"
        )


def printable(text: str) -> str:
    """Return text that any stream can encode: bytes of a file name that are not UTF-8 become ?."""
    return text.encode("utf-8", "replace").decode("utf-8")
