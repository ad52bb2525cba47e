"""Runs a command over images and folders: writes files, shows progress, resumes, sums up."""

from __future__ import annotations

import json
import logging
import os
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer
from rich.console import Console

from ...models.errors import PromptsegError
from ...pipeline.files import remove_leftovers
from ...pipeline.saving import OVERLAY_FILE, RESULT_FILE
from ..console import (
    EXIT_FAILED,
    EXIT_INTERRUPTED,
    EXIT_TERMINATED,
    Bar,
    Terminated,
    describe_error,
    exit_code,
    printable,
    say_error,
    visible,
)
from ..exports.lock import LOCK_FILE, FolderGoneError, FolderLock
from ..exports.manifest import MANIFEST_FILE, Manifest
from ..wording import count, describe_unseen
from .folders import output_folders
from .job import Job, Progress, RunOptions, Segment, Stop, writing
from .output_plan import OutputPlan
from .pictures import Pictures, find_pictures
from .rasters import check_outputs, drawn_pixels, use_of_pixels
from .run_summary import (
    FAILURES_FILE,
    RUN_FILE,
    SUMMARY_FILE,
    Entry,
    RunLog,
    describe_labels,
    summarise,
)

if TYPE_CHECKING:
    from ..exports.run import Exports

logger = logging.getLogger(__name__)

# How long a single image waits for another process that writes to the same folder, in seconds.
_PATIENCE = 60.0
_REMOVED = "its files were removed while the run went on; run the same command with --resume"


class Runner:
    """Does a job for each image in turn and reports it.

    Args:
        job: What to do.
        options: Where results go.
    """

    def __init__(self, job: Job, options: RunOptions) -> None:
        self.job = job
        self.options = options
        self.console = Console()
        self.errors = Console(stderr=True)
        self._segment: Segment | None = None
        self._log = RunLog(None, {}, resume=False)
        self._lock: FolderLock
        self._manifest: Manifest
        self._planned: list[Path] | None = None

    def run(self, given: Sequence[str]) -> int:
        """Do all images and those of all folders; return the exit code."""
        try:
            pictures = find_pictures(
                given,
                self.options.out if self.options.writes else None,
                allow_urls=self.options.allow_urls,
                frames=self.options.frames,
                windows=self.options.tiles is not None,
            )
            if self.options.writes:
                with self._hold(pictures) as lock:
                    codes = self._run_in_folder(pictures, lock)
            else:
                codes = self._do_all(pictures, self._log, None)
                self._finish(pictures, self._log)
        except KeyboardInterrupt as stop:
            say_error(self.errors, f"stopped{self._log.way_on()}")
            return EXIT_TERMINATED if isinstance(stop, Terminated) else EXIT_INTERRUPTED
        except Stop as stop:
            text = describe_error(stop.cause)
            if not isinstance(stop.cause, FolderGoneError):
                text += self._log.way_on()
            say_error(self.errors, text)
            self._echo_error(stop.image, text)
            return exit_code(stop.cause)
        except BrokenPipeError:
            raise
        except FolderGoneError as error:
            say_error(self.errors, describe_error(error))
            return exit_code(error)
        except (PromptsegError, OSError) as error:
            say_error(self.errors, f"{describe_error(error)}{self._log.way_on()}")
            return exit_code(error)
        if not codes:
            return 0
        return EXIT_FAILED if pictures.several else codes[0]

    def _hold(self, pictures: Pictures) -> FolderLock:
        """Hold the run's folder; only a single image waits for another process."""
        return FolderLock(
            self.options.base,
            patience=0.0 if pictures.several else _PATIENCE,
            waiting=lambda told: self._print(f"{told}; waiting", console=self.errors),
        )

    def _run_in_folder(self, pictures: Pictures, lock: FolderLock) -> list[int]:
        """Do all images into a folder that is held; return the exit codes of failures."""
        self._lock = lock
        self._manifest = manifest = Manifest(self.options.base, overwrite=self.options.overwrite)
        self._log = log = self._open_log(pictures, manifest)
        with ExitStack() as stack:
            exports = None
            if self.options.formats:
                exports = self._open_exports(pictures, manifest)
            self._plan(pictures, log, exports).check(manifest, self._done(pictures, log, exports))
            if exports is not None:
                stack.enter_context(exports)
            codes = self._do_all(pictures, log, exports)
        # Once the exports are complete.
        lock.check()
        codes += self._check_written(pictures, log, exports)
        self._finish(pictures, log)
        manifest.close()
        return codes

    def _plan(self, pictures: Pictures, log: RunLog, exports: Exports | None) -> OutputPlan:
        """Return all files of the run that are known before it."""
        plan = OutputPlan(inputs=[*pictures.files, *self.job.inputs()])
        if log.folder is not None:
            plan.files += [(log.folder / name, "") for name in (SUMMARY_FILE, FAILURES_FILE)]
            plan.shared.append(log.folder / RUN_FILE)
        if exports is not None:
            plan.shared += exports.shared()
        planned: set[str] = set()
        for path, folder in self._places(pictures):
            image = _absolute(path)
            if exports is None:
                plan.folders.append(folder)
                plan.files += [(folder / name, image) for name in (OVERLAY_FILE, RESULT_FILE)]
            elif image not in planned:  # the same image twice is written twice
                planned.add(image)
                files, folders = exports.outputs(path)
                plan.files += [(item, image) for item in files]
                plan.folders += folders
        return plan

    def _done(self, pictures: Pictures, log: RunLog, exports: Exports | None) -> list[Path]:
        """Return the files and folders of images that are skipped."""
        if not self.options.resume:
            return []
        done: list[Path] = []
        for path, folder in self._places(pictures):
            if not self._is_done(path, folder, log, exports):
                continue
            if exports is None:
                done.append(folder)
            else:
                files, folders = exports.outputs(path)
                done += [*files, *folders]
        return done

    def _check_written(self, pictures: Pictures, log: RunLog, exports: Exports | None) -> list[int]:
        """Report images whose files were removed meanwhile; return an exit code for each."""
        codes = []
        for path, folder in self._places(pictures):
            key = self._key(path, folder)
            entry = log.entries.get(key)
            if entry is None or entry.error:
                continue
            there = exports.has(path) if exports is not None else (folder / RESULT_FILE).is_file()
            if not there:
                say_error(self.errors, f"{path!r}: {_REMOVED}")
                log.add(Entry(*key, error=_REMOVED))
                codes.append(EXIT_FAILED)
        return codes

    def _do_all(self, pictures: Pictures, log: RunLog, exports: Exports | None) -> list[int]:
        """Do the images; return the exit codes of failures."""
        codes: list[int] = []
        several = pictures.several
        title = "segmenting" if several else self.job.progress_title
        total = len(pictures.paths) if several else 0
        with Bar(total, self.errors if title else None, title) as bar:
            for path, error in pictures.unreadable:
                log.add(Entry(_absolute(path), "", error=self._report_failure(path, error)))
                codes.append(exit_code(error))
            for path, folder in self._places(pictures):
                if self.options.resume and self._is_done(path, folder, log, exports):
                    bar.advance()
                    continue
                bar.show()
                progress = None if several else bar.update
                try:
                    report = self._do(path, folder, log, exports, progress, pictures)
                except Stop:
                    raise
                except Exception as error:  # whatever one image does, the others are done
                    logger.debug("failed on %s", path, exc_info=True)
                    bar.hide()
                    text = self._report_failure(path, error)
                    log.add(Entry(*self._key(path, folder), error=text))
                    codes.append(exit_code(error))
                else:
                    bar.hide()
                    report()
                    if log.entries[self._key(path, folder)].error:  # something of it was not seen
                        codes.append(EXIT_FAILED)
                bar.advance()
        return codes

    def _do(
        self,
        path: str,
        folder: Path,
        log: RunLog,
        exports: Exports | None,
        progress: Progress | None,
        pictures: Pictures,
    ) -> Callable[[], None]:
        """Segment one image, write its files, and return what prints the report."""
        # Before the models, so that a wrong path is reported at once.
        started = time.perf_counter()
        picture = pictures.load(path)
        own_files = self.options.writes and exports is None
        check_outputs(path, picture, exports, own_files=own_files)
        began = time.perf_counter()
        segment = self._prepare(path)
        started += time.perf_counter() - began  # the models are not this image's
        result = segment(picture, progress)
        pixels = drawn_pixels(picture, use_of_pixels(exports, own_files=own_files))
        unseen = describe_unseen(result)
        from ...pipeline.saving import file_names, overlay_note, render_outputs

        record: dict[str, Any] = {
            **pictures.describe(path),
            "preset": self.options.preset,
            **self.job.record(),
            "files": file_names(folder, result) if own_files else None,
            **result.to_dict(),
        }
        reduced = overlay_note(result.image_size) if own_files else ""
        notes = [note for note in (pictures.left_out(path), reduced) if note]
        with writing(path, needed=True):
            if self.options.writes:
                self._lock.check()
            log.begin()
        with writing(path):
            if exports is not None:
                notes += exports.add(path, pixels, result)
            elif own_files and pixels is not None:
                for place in (folder, folder.parent):
                    remove_leftovers(place)
                files = render_outputs(pixels, self.job.drawn(result), record)
                self._manifest.write_folder(folder, files, _absolute(path))
            log.add(Entry(*self._key(path, folder), len(result), unseen, tuple(notes)))
        if unseen:
            say_error(self.errors, f"{path!r}: {unseen}")
        seconds = time.perf_counter() - started
        if self.options.as_json:
            # The time is not in the file, which is the same for every run.
            line = json.dumps({**record, "seconds": round(seconds, 3)}, allow_nan=False)
            return lambda: typer.echo(line)
        if pictures.opened:
            found = describe_labels(self.job.drawn(result).labels)
            return lambda: self._print(f"{printable(path)}: {found}, {seconds:.2f} s")
        from .report import describe_result

        report = describe_result(printable(path), result, self.job.labels())
        where = folder if exports is None else self.options.base
        closing = f"{seconds:.2f} s; written to {printable(str(where))}{os.sep}"

        def show() -> None:
            self.console.print(report)
            self._print(closing, style="dim")

        return show

    def _prepare(self, image: str) -> Segment:
        if self._segment is None:
            try:
                self._segment = self.job.prepare()
            except Exception as error:
                logger.debug("nothing can be segmented", exc_info=True)
                raise Stop(image, error) from error
        return self._segment

    def _places(self, pictures: Pictures) -> list[tuple[str, Path]]:
        """Return each image with the folder for its own files."""
        if self.options.out is not None and not pictures.several:
            return [(pictures.paths[0], self.options.out)]
        if not self.options.writes:
            return [(path, Path()) for path in pictures.paths]
        if self._planned is None:
            own = (RUN_FILE, SUMMARY_FILE, FAILURES_FILE, MANIFEST_FILE, LOCK_FILE)
            self._planned = output_folders(
                pictures.names,
                self.options.base,
                own,
                images=[_absolute(path) for path in pictures.paths],
                owners=self._manifest.folders_of_images(RESULT_FILE),
            )
        return list(zip(pictures.paths, self._planned, strict=True))

    def _open_log(self, pictures: Pictures, manifest: Manifest) -> RunLog:
        options = self.options
        keeps = options.writes and (pictures.several or options.resume)
        if not keeps:
            return RunLog(None, {}, resume=False)
        asked = {
            **self.job.settings(),
            "formats": sorted(set(options.formats)),
            "simplify": options.simplify,
        }
        return RunLog(options.base, asked, resume=options.resume, manifest=manifest)

    def _open_exports(self, pictures: Pictures, manifest: Manifest) -> Exports:
        from ..exports.run import Exports

        return Exports(
            self.options.formats,
            self.options.base,
            pictures.paths,
            labels=self.job.labels(),
            root=pictures.root,
            files=manifest,
            simplify=self.options.simplify,
        )

    def _is_done(self, path: str, folder: Path, log: RunLog, exports: Exports | None) -> bool:
        if not log.is_done(*self._key(path, folder)):
            return False
        # The log knows what was written, not whether it still exists.
        return exports.has(path) if exports is not None else (folder / RESULT_FILE).is_file()

    def _key(self, path: str, folder: Path) -> tuple[str, str]:
        """Return the log's key of an image."""
        if self.options.formats:
            return _absolute(path), ""
        return _absolute(path), Path(os.path.relpath(folder, self.options.base)).as_posix()

    def _finish(self, pictures: Pictures, log: RunLog) -> None:
        """Write and print what became of the images, and what formats could not hold."""
        keys = [(_absolute(path), "") for path, _ in pictures.unreadable]
        keys += [self._key(*place) for place in self._places(pictures)]
        log.finish(keys)
        summary = summarise([log.entries[key] for key in keys])
        console = self.errors if self.options.as_json else self.console
        for note in summary.notes:
            self._print(note, style="dim", console=console)
        if not pictures.several:
            return
        if not self.options.as_json:
            self._print(
                f"{count(summary.images, 'image')}: {summary.with_masks} with masks, "
                f"{summary.nothing_found} with nothing found, {summary.failed} failed",
                style="dim",
            )
        if summary.failed:
            path = self.options.base / FAILURES_FILE
            listed = "" if log.folder is None else f"; see {str(path)!r}"
            of_all = f"{summary.failed} of {count(summary.images, 'image')}"
            say_error(self.errors, f"{of_all} failed{listed}")

    def _report_failure(self, image: str, error: Exception) -> str:
        text = describe_error(error)
        text = text if repr(image) in text else f"{image!r}: {text}"
        say_error(self.errors, text)
        self._echo_error(image, text)
        return printable(text)

    def _echo_error(self, image: str, text: str) -> None:
        if self.options.as_json:
            typer.echo(json.dumps({"image": printable(image), "error": printable(text)}))

    def _print(self, text: str, style: str = "", console: Console | None = None) -> None:
        target = console or self.console
        target.print(visible(text), style=style, highlight=False, markup=False, soft_wrap=True)


def _absolute(path: str) -> str:
    return os.path.abspath(path)  # noqa: PTH100 - a link is an image of that name and place
