"""What became of the images of a run: a line per image as it goes on, a summary at its end."""

from __future__ import annotations

import json
import os
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import msgspec

from ...models.errors import InputError
from ..console import printable
from ..exports.manifest import Files, Manifest
from ..journal import Journal, is_journal
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
        manifest: Writes the summary; needed with a folder.

    Attributes:
        begun: Whether the file on disk is that of this run.
        entries: By image and folder; those of an earlier run too, except its failures.

    Raises:
        InputError: What is there belongs to another run.
        OSError: It cannot be read or written.
    """

    def __init__(
        self,
        folder: Path | None,
        asked: Mapping[str, object],
        *,
        resume: bool,
        manifest: Manifest | None = None,
    ) -> None:
        self.folder = folder
        self._manifest = manifest
        self.begun = False
        self.entries: dict[tuple[str, str], Entry] = {}
        if folder is None:
            return
        path = folder / RUN_FILE
        self._journal = Journal(path, RUN_KEY, asked, _REMEDY)
        overwrite = manifest is not None and manifest.overwrite and path.is_file()
        if not (resume or overwrite) and _is_foreign(path):
            raise InputError(
                f"{str(path)!r} is in the way: promptseg did not write it; move it away, give "
                "another --out, or replace it with --overwrite"
            )
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
            if self._manifest is not None:
                self._manifest.remove(self.folder / name)
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

    def way_on(self) -> str:
        """Return how to resume after an interruption, if there is something to resume from."""
        if self.folder is None or not (self.begun or self.entries):
            return ""
        done = sum(not entry.error for entry in self.entries.values())
        return f"; {count(done, 'image')} done; the same command with --resume continues from there"

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
        text = json.dumps(asdict(summary), indent=2) + "\n"
        self._write(SUMMARY_FILE, text)
        if summary.failures:
            lines = [f"{item['image']}\t{item['error']}\n" for item in summary.failures]
            self._write(FAILURES_FILE, printable("".join(lines)))

    def _write(self, name: str, text: str) -> None:
        if self.folder is not None:
            files = Files() if self._manifest is None else self._manifest
            files.write(self.folder / name, text.encode())


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


def _is_foreign(path: Path) -> bool:
    """Return whether there is a file, with something in it, that is not the log of a run."""
    if not os.path.lexists(path) or (path.is_file() and path.stat().st_size == 0):
        return False
    return not is_journal(path, RUN_KEY)


class _Row(msgspec.Struct, forbid_unknown_fields=True):
    """The line of an image in run.jsonl."""

    image: str
    folder: str
    masks: int
    error: str
    notes: tuple[str, ...]


def _parse_entry(values: Any) -> Entry:
    row = msgspec.convert(values, _Row)
    return Entry(row.image, row.folder, row.masks, row.error, row.notes)


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


def describe_labels(labels: Sequence[str]) -> str:
    """Return "3 masks (2 cat, dog)" or "nothing found"."""
    if not labels:
        return "nothing found"
    masks = count(len(labels), "mask")
    kinds = Counter(label for label in labels if label).items()
    named = ", ".join(f"{number} {label}" if number > 1 else label for label, number in kinds)
    return f"{masks} ({named})" if named else masks
