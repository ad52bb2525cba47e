"""`promptseg segment` in processes of their own, with a pipeline that answers at once.

    folder_run.py slow ARGUMENTS
    folder_run.py kill ARGUMENTS

The second runs once undisturbed in the folder "whole", and then again and again, in folders "1",
"2" and so on: kill -9 strikes the Nth time that the process opens a file or moves one into its
place.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from conftest import FakePipeline

from promptseg.apps.cli.main import app
from promptseg.apps.cli.main import main as run_command
from promptseg.apps.cli.options import ModelOptions

MOST = 1000


def count_down(call: Callable[..., Any], left: list[int]) -> Callable[..., Any]:
    """Kill the process at a call, instead of doing it."""

    def counted(*given: object, **named: object) -> Any:
        left[0] -= 1
        if left[0] == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        return call(*given, **named)

    return counted


class SlowPipeline(FakePipeline):
    """Takes its time."""

    def propose(self, image: Any, query: Any, **options: object) -> Any:
        time.sleep(0.3)
        return super().propose(image, query)


def run_in(folder: str, arguments: list[str]) -> None:
    Path(folder).mkdir()
    os.chdir(folder)
    with contextlib.suppress(SystemExit):
        app(arguments)
    os.chdir("..")


def main() -> None:
    mode, arguments = sys.argv[1], sys.argv[2:]
    pipeline = SlowPipeline() if mode == "slow" else FakePipeline()
    ModelOptions.load = lambda options: pipeline
    # A shell may have started the tests with SIGINT ignored.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    if mode == "slow":
        sys.argv[1:] = arguments
        run_command()
    # Also imports all, so that the others need not.
    run_in("whole", arguments)
    for moment in range(1, MOST):
        child = os.fork()
        if child == 0:
            left = [moment]
            Path.replace = count_down(Path.replace, left)
            Path.open = count_down(Path.open, left)
            run_in(str(moment), arguments)
            os._exit(0)
        _, status = os.waitpid(child, 0)
        if not os.WIFSIGNALED(status):
            return


if __name__ == "__main__":
    main()
