"""What became of the images of a run: a line per image as it goes on, a summary at its end."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from ...pipeline.files import write_text
from ..console import printable
from ..journal import Journal
from ..wording import count

RUN_FILE = "run.jsonl"
RUN_KEY = "promptseg_run"
SUMMARY_FILE = "summary.json"
FAILURES_FILE = "failures.txt"

_REMEDY = "ask for the same, give another --out, or start over without --resume"


@dataclass(frozen=True)
class Entry:
    """What became of an image.

    Attributes:
        image: Its absolute path.
        folder: Folder of its own files, below the run's; empty if it has none.
        masks: How many were found; 0 also after a failure.
        error: Why it failed; empty if it did not.
        notes: What formats could not hold.
    """

    image: str
    folder: str
    masks: int = 0
    error: str = ""
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Summary:
    """What became of the images of a run; the content of summary.json.

    Attributes:
        images: How many there are.
        with_masks: How many of them have masks.
        nothing_found: How many have none.
        failed: How many failed.
        failures: Image and error of each.
        notes: What formats could not hold, each kind once.
    """

    images: int
    with_masks: int
    nothing_found: int
    failed: int
    failures: list[dict[str, str]]
    notes: list[str]


class RunLog:
    """The images that are done, each recorded after its files are written.

    Args:
        folder: Folder of the run; None keeps nothing on disk.
        asked: What is asked of every image, JSON-able.
        resume: Whether to continue from what is there.

    Attributes:
        begun: Whether the file on disk is that of this run.
        entries: By image and folder; those of an earlier run too, except its failures.

    Raises:
        InputError: What is there belongs to another run.
        OSError: It cannot be read or written.
    """

    def __init__(self, folder: Path | None, asked: Mapping[str, object], *, resume: bool) -> None:
        self.folder = folder
        self.begun = False
        self.entries: dict[tuple[str, str], Entry] = {}
        if folder is None:
            return
        self._journal = Journal(folder / RUN_FILE, RUN_KEY, asked, _REMEDY)
        if resume:
            for entry in self._journal.read(_parse_entry):
                if not entry.error:
                    self.entries[entry.image, entry.folder] = entry

    def begin(self) -> None:
        """Write the journal that this run continues; before the first image's files."""
        if self.begun or self.folder is None:
            return
        self._journal.write(map(asdict, self.entries.values()))
        for name in (SUMMARY_FILE, FAILURES_FILE):
            (self.folder / name).unlink(missing_ok=True)
        self.begun = True

    def add(self, entry: Entry) -> None:
        """Record what became of an image."""
        self.begin()
        self.entries[entry.image, entry.folder] = entry
        if self.folder is not None:
            self._journal.append(asdict(entry))

    def is_done(self, image: str, folder: str) -> bool:
        """Return whether an image was segmented, with its files in this folder."""
        entry = self.entries.get((image, folder))
        return entry is not None and not entry.error

    def finish(self, keys: Sequence[tuple[str, str]]) -> None:
        """Put the lines into the order of the run's images, and write the summary.

        Args:
            keys: Image and folder of each.
        """
        if self.folder is None:
            return
        self.begin()
        own = {key: self.entries[key] for key in keys}
        others = [entry for key, entry in self.entries.items() if key not in own]
        self._journal.write(map(asdict, [*others, *own.values()]))
        summary = summarise([self.entries[key] for key in keys])
        write_text(self.folder / SUMMARY_FILE, json.dumps(asdict(summary), indent=2) + "\n")
        if summary.failures:
            lines = [f"{item['image']}\t{item['error']}\n" for item in summary.failures]
            write_text(self.folder / FAILURES_FILE, printable("".join(lines)))


def summarise(entries: Sequence[Entry]) -> Summary:
    """Return what became of the images of a run."""
    failed = [entry for entry in entries if entry.error]
    with_masks = sum(entry.masks > 0 for entry in entries)
    return Summary(
        images=len(entries),
        with_masks=with_masks,
        nothing_found=len(entries) - with_masks - len(failed),
        failed=len(failed),
        failures=[{"image": printable(entry.image), "error": entry.error} for entry in failed],
        notes=_merge_notes(entries),
    )


def _parse_entry(values: Any) -> Entry:
    return Entry(**{**values, "notes": tuple(values["notes"])})


def _merge_notes(entries: Iterable[Entry]) -> list[str]:
    """Return each kind of note once: as it was for the first image, and how many more have it."""
    first: dict[str, str] = {}
    images: dict[str, set[str]] = {}
    for entry in entries:
        for note in entry.notes:
            # Notes that differ in their numbers only are of one kind.
            kind = re.sub(r"[0-9]+( empty)?( masks?)?", "#", note)
            first.setdefault(kind, f"{Path(entry.image).name}: {note}")
            images.setdefault(kind, set()).add(entry.image)
    merged = []
    for kind, note in first.items():
        more = len(images[kind]) - 1
        merged.append(f"{note}; similar in {count(more, 'more image')}" if more else note)
    return merged
