"""Time a pocket query while another process uses a core, as the command line runs and otherwise.

    python benchmarks/neighbour.py [--repeats 15]

Two processes take turns with the same query on a photograph of 640 x 480: one has OpenMP's own
settings, whose threads spin while they wait, the other what the command line sets before it loads
torch. Both are timed with the machine to themselves and beside a process that is busy on one core
all the time. Printed are the medians and the longest times, after a warm-up.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

from promptseg.apps.threads import COUNT_VARIABLES, WAIT_VARIABLES, set_up_threads

SETTINGS = ("OpenMP's own", "the command line's")
BUSY = "while True: pass"


class Worker:
    """A process that answers a query for every line that it gets.

    Args:
        setting: One of SETTINGS.
    """

    def __init__(self, setting: str) -> None:
        names = (*WAIT_VARIABLES, *COUNT_VARIABLES)
        environment = {name: value for name, value in os.environ.items() if name not in names}
        if setting == SETTINGS[1]:
            set_up_threads(environment)
        self.process = subprocess.Popen(
            [sys.executable, __file__, "--worker"],
            env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        )  # fmt: skip

    def ask(self) -> float:
        """Return the seconds that one query took."""
        if self.process.stdin is None or self.process.stdout is None:
            raise RuntimeError("Popen gave no pipes")
        print(file=self.process.stdin, flush=True)
        return float(self.process.stdout.readline())

    def close(self) -> None:
        """End the process."""
        self.process.communicate()


@contextmanager
def neighbour(wanted: bool) -> Iterator[None]:
    """Keep a process busy meanwhile."""
    if not wanted:
        yield
        return
    with subprocess.Popen([sys.executable, "-c", BUSY]) as process:
        try:
            yield
        finally:
            process.kill()


def answer() -> None:
    """Answer one query for each line on standard input and print its seconds."""
    import numpy as np
    from PIL import Image
    from skimage import data

    from promptseg import load

    image = np.asarray(Image.fromarray(data.chelsea()).resize((640, 480)))
    pipe = load("pocket")
    for _ in sys.stdin:
        start = time.perf_counter()
        pipe(image, text="cat")
        print(time.perf_counter() - start, flush=True)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--repeats", type=int, default=15)
    parser.add_argument("--worker", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.worker:
        answer()
        return
    workers = {setting: Worker(setting) for setting in SETTINGS}
    for worker in workers.values():
        worker.ask()
    print(f"one phrase with pocket, 640 x 480, {os.cpu_count()} cores")
    print(f"{'threads wait by':<22}{'neighbour':<12}{'median s':>10}{'longest s':>11}")
    for busy in (False, True):
        seconds: dict[str, list[float]] = {setting: [] for setting in SETTINGS}
        with neighbour(busy):
            for _ in range(options.repeats):
                for setting, worker in workers.items():
                    seconds[setting].append(worker.ask())
        for setting, measured in seconds.items():
            print(
                f"{setting:<22}{'busy' if busy else 'none':<12}"
                f"{statistics.median(measured):>10.2f}{max(measured):>11.2f}"
            )
    for worker in workers.values():
        worker.close()


if __name__ == "__main__":
    main()
