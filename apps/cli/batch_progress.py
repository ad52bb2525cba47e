"""The progress of a batch: a bar with images a second and the time left, or lines in a log."""

from __future__ import annotations

import time

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    Task,
    TextColumn,
    TimeRemainingColumn,
)
from rich.text import Text

# Seconds between two lines where there is no terminal, and of the past that speed is measured on.
_LINE_SECONDS = 30.0
_SPEED_SECONDS = 600.0


class _Speed(ProgressColumn):
    """Images a second, or seconds an image."""

    def render(self, task: Task) -> Text:
        return Text("" if not task.speed else describe_speed(task.speed))


class BatchProgress:
    """Shows how many images are done; call it with their number and the total.

    Args:
        console: Where to show it: a bar on a terminal, otherwise a line every half minute.
    """

    def __init__(self, console: Console) -> None:
        self._console = console
        self._bar: Progress | None = None
        if console.is_terminal:
            self._bar = Progress(
                TextColumn("segmenting"),
                BarColumn(),
                MofNCompleteColumn(),
                _Speed(),
                TimeRemainingColumn(),
                console=console,
                transient=True,
                speed_estimate_period=_SPEED_SECONDS,
            )
            self._task = self._bar.add_task("", total=None)
        self._first: tuple[float, int] | None = None
        self._line = time.monotonic()

    def __enter__(self) -> BatchProgress:
        if self._bar is not None:
            self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._bar is not None:
            self._bar.stop()

    def __call__(self, done: int, total: int) -> None:
        """Show that so many of so many are done."""
        now = time.monotonic()
        if self._first is None:
            self._first = now, done
            if self._bar is not None:  # what an earlier run did is not this one's speed
                self._bar.reset(self._task, total=total, completed=done)
        if self._bar is not None:
            if done > self._bar.tasks[0].completed:
                self._bar.update(self._task, completed=done, total=total)
        elif now - self._line >= _LINE_SECONDS:
            self._line = now
            line = describe_progress(done, total, done - self._first[1], now - self._first[0])
            self._console.print(line, highlight=False, markup=False, soft_wrap=True)


def describe_speed(speed: float) -> str:
    """Return how fast that many images a second are, the slow ones as seconds an image."""
    return f"{speed:.1f} a second" if speed >= 1 else f"{1 / speed:.1f} s an image"


def describe_progress(done: int, total: int, now: int, seconds: float) -> str:
    """Return a line that tells the progress.

    Args:
        done: Images that are done, also by earlier runs.
        total: Of all.
        now: Images that this run did.
        seconds: That it took.
    """
    line = f"{done} of {total} images"
    if not (now and seconds):
        return line
    left = round((total - done) * seconds / now)
    hours, minutes = divmod(-(-left // 60), 60)
    told = f"{hours} h {minutes} min" if hours else f"{minutes} min"
    return f"{line}, {describe_speed(now / seconds)}, {told} left"
