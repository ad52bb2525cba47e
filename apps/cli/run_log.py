"""What a run over many images has done, a line an image, so that an interrupted one can go on.

The first line says what was asked; a run of anything else does not go on from it.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from ...models.errors import InputError
from ...pipeline.files import write_text
from ..console import printable

RUN_FILE = "run.jsonl"
SUMMARY_FILE = "summary.json"
FAILURES_FILE = "failures.txt"

_KEY = "promptseg_run"
_LONGEST_SHOWN = 80


@dataclass(frozen=True)
class Entry:
    """What became of an image.

    Attributes:
        image: Its absolute path.
        folder: Of its own files, below the run's; empty where it has none.
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
    """The images that are done, each written down after its files.

    Args:
        folder: Of the run; None keeps nothing on disk.
        asked: What is asked of every image, JSON-able.
        resume: Whether to go on from what is there.

    Attributes:
        begun: Whether the file on disk is that of this run.
        entries: By image and folder, those of an earlier run too, but for its failures.

    Raises:
        InputError: What is there is of another run.
        OSError: It cannot be read or written.
    """

    def __init__(self, folder: Path | None, asked: Mapping[str, object], *, resume: bool) -> None:
        self.folder = folder
        self.entries: dict[tuple[str, str], Entry] = {}
        # As it is read back: tuples become lists.
        self._asked = json.loads(json.dumps(dict(asked)))
        self.begun = False
        if folder is not None and resume:
            self._read(folder / RUN_FILE)

    def begin(self) -> None:
        """Replace what is there by what this run goes on from; before its first file is written."""
        if self.begun or self.folder is None:
            return
        self._write(self.entries.values())
        for name in (SUMMARY_FILE, FAILURES_FILE):
            (self.folder / name).unlink(missing_ok=True)
        self.begun = True

    def add(self, entry: Entry) -> None:
        """Write down what became of an image."""
        self.begin()
        self.entries[entry.image, entry.folder] = entry
        if self.folder is not None:
            with (self.folder / RUN_FILE).open("a", encoding="utf-8") as file:
                file.write(_dump(asdict(entry)))

    def is_done(self, image: str, folder: str) -> bool:
        """Return whether an image was segmented, its files in this folder."""
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
        self._write([*others, *own.values()])
        summary = summarise([self.entries[key] for key in keys])
        write_text(self.folder / SUMMARY_FILE, json.dumps(asdict(summary), indent=2) + "\n")
        if summary.failures:
            lines = [f"{item['image']}\t{item['error']}\n" for item in summary.failures]
            write_text(self.folder / FAILURES_FILE, printable("".join(lines)))

    def _write(self, entries: Iterable[Entry]) -> None:
        if self.folder is None:
            return
        lines = [_dump({_KEY: self._asked}), *(_dump(asdict(entry)) for entry in entries)]
        write_text(self.folder / RUN_FILE, "".join(lines))

    def _read(self, path: Path) -> None:
        try:
            # Without the last line, where an interruption cut it off.
            lines = path.read_text(encoding="utf-8").split("\n")[:-1]
        except FileNotFoundError:
            return
        except UnicodeDecodeError as error:
            raise _refusal(path, "it is not UTF-8 text") from error
        if not lines:
            return
        asked = _read_header(lines[0])
        if asked is None:
            raise _refusal(path, "its first line does not say what was asked")
        for key in {**self._asked, **asked}:
            was, now = asked.get(key), self._asked.get(key)
            if was != now:
                raise _refusal(path, f"its {key} is {_show(was)}, that of this run {_show(now)}")
        for number, line in enumerate(lines[1:], start=2):
            try:
                values = json.loads(line)
                entry = Entry(**{**values, "notes": tuple(values["notes"])})
            except (ValueError, TypeError, KeyError) as error:
                raise _refusal(path, f"line {number} is broken") from error
            if not entry.error:
                self.entries[entry.image, entry.folder] = entry


def is_run_file(path: Path) -> bool:
    """Return whether a file is the log of a run."""
    try:
        with path.open(encoding="utf-8") as file:
            return _read_header(file.readline()) is not None
    except (OSError, ValueError):
        return False


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


def _merge_notes(entries: Iterable[Entry]) -> list[str]:
    """Return each kind of note once: as it was of the first image, and how many more have it."""
    first: dict[str, str] = {}
    images: dict[str, set[str]] = {}
    for entry in entries:
        for note in entry.notes:
            # Notes that differ in their numbers only are of one kind.
            kind = re.sub(r"[0-9]+( masks?)?", "#", note)
            first.setdefault(kind, f"{Path(entry.image).name}: {note}")
            images.setdefault(kind, set()).add(entry.image)
    merged = []
    for kind, note in first.items():
        more = len(images[kind]) - 1
        plural = "image" if more == 1 else "images"
        merged.append(f"{note}; the like in {more} more {plural}" if more else note)
    return merged


def _read_header(line: str) -> dict[str, object] | None:
    try:
        asked = json.loads(line)[_KEY]
    except (ValueError, KeyError, TypeError):
        return None
    return asked if isinstance(asked, dict) else None


def _refusal(path: Path, reason: str) -> InputError:
    return InputError(
        f"--resume cannot go on from {str(path)!r}: {reason}; "
        "ask the same, give another --out, or begin anew without --resume"
    )


def _show(value: object) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= _LONGEST_SHOWN else f"{text[:_LONGEST_SHOWN]}..."


def _dump(values: Mapping[str, object]) -> str:
    # In ASCII, which also takes the bytes of a path that are not UTF-8.
    return json.dumps(values, allow_nan=False) + "\n"
