"""Resumable downloads of published weights from the Hugging Face hub.

``hf_hub_download`` of huggingface_hub resumes a broken connection, but a new run starts over. Here
a file grows beside its destination under the name ``*.incomplete``, through the same library's
requests (so that HF_ENDPOINT, HF_TOKEN and proxies apply), and is renamed once it is complete and
its hash is right. In the hub's cache the library then links it as if it had fetched it itself.

Two names of the library are not documented: ``http_get`` and ``WeakFileLock``. They are the reason
for the upper bound on huggingface-hub in pyproject.toml.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from ..errors import CheckpointError
from ..foreign import hash_file
from .find import find_cached, is_whole, own_places
from .sources import WeightSource

_SHA256 = re.compile(r"[0-9a-f]{64}")
_ETAG = re.compile(r"[\w-]+")
_CHUNK = 1 << 24
# Left free on the disk when all is there.
_SPARE_BYTES = 100_000_000


@dataclass(frozen=True)
class Download:
    """A file to fetch.

    Attributes:
        source: The source that the file belongs to.
        file: Name of the file within its repository.
        size: Size in bytes.
        sha256: Expected hash of the content; "" if unknown.
        target: Path that the file is written to.
        url: Address that it is downloaded from; "" if it is copied.
        own: Whether the target is in a folder of the user's rather than in the hub's cache.
        copied_from: The same file in the hub's cache, which is copied instead of downloaded.
    """

    source: WeightSource
    file: str
    size: int
    sha256: str
    target: Path
    url: str
    own: bool
    copied_from: Path | None = None

    @property
    def partial(self) -> Path:
        """Path of the incomplete file."""
        return self.target.with_name(f"{self.target.name}.incomplete")

    @property
    def done(self) -> int:
        """Number of bytes left by an interrupted run."""
        try:
            return min(self.partial.stat().st_size, self.size)
        except OSError:
            return 0


def plan_downloads(sources: Sequence[WeightSource], folder: Path | None = None) -> list[Download]:
    """List the files that are missing, asking the hub for the size of each.

    Args:
        sources: The weights to fetch.
        folder: The user's folder to fetch them to; None is the hub's cache.

    Raises:
        CheckpointError: The hub cannot be reached, refuses or lacks a file, or has a different
            file from the one that promptseg knows.
    """
    downloads = []
    for source in sources:
        cached = find_cached(source.repo, source.files)
        home = cached if folder is None else _home(source, folder)
        for file in source.files:
            if home is not None and is_whole(home / file):
                continue
            if home is not None and folder is not None and cached and is_whole(cached / file):
                downloads.append(_copy_of(source, file, cached / file, home / file))
                continue
            with _told(source, file):
                downloads.append(_ask(source, file, None if folder is None else home))
    return downloads


def check_space(downloads: Sequence[Download]) -> None:
    """Check that there is room on the disk for the downloads.

    Raises:
        CheckpointError: There is not.
    """
    needed = sum(item.size - item.done for item in downloads)
    if not needed:
        return
    folder = downloads[0].target.parent
    while not folder.exists():
        folder = folder.parent
    free = shutil.disk_usage(folder).free
    if needed + _SPARE_BYTES > free:
        raise CheckpointError(
            f"the download needs {needed / 1e9:.1f} GB, but {folder} has {free / 1e9:.1f} GB free; "
            "make room, or choose a folder on another disk"
        )


def run_download(item: Download) -> None:
    """Fetch a file, or the rest of it; an interrupted run leaves its part for the next one.

    Raises:
        CheckpointError: The hub cannot be reached or refuses, the disk cannot be written to, or
            the content is wrong; wrong content is removed.
    """
    from huggingface_hub import hf_hub_download
    from huggingface_hub.utils import WeakFileLock  # type: ignore[attr-defined]

    with _told(item.source, item.file):
        item.target.parent.mkdir(parents=True, exist_ok=True)
        lock = item.partial.with_name(f"{item.partial.name}.lock")
        try:
            with WeakFileLock(lock):  # two runs must not write to one file
                if not _is_there(item):
                    _fill(item)
                    _check(item)
                    item.partial.replace(item.target)
        finally:
            with suppress(OSError):  # another run may wait for it
                lock.unlink()
        if not item.own:
            _drop_broken_link(item)
            hf_hub_download(item.source.repo, item.file)


def _home(source: WeightSource, folder: Path) -> Path:
    """The source's folder in one of the user's."""
    places = own_places(source.repo, folder)
    return next((place for place in places if place.is_dir()), places[0])


def _copy_of(source: WeightSource, file: str, cached: Path, target: Path) -> Download:
    sha256 = source.sha256.get(file, "")
    size = cached.stat().st_size
    return Download(source, file, size, sha256, target, "", own=True, copied_from=cached)


def _ask(source: WeightSource, file: str, home: Path | None) -> Download:
    """Ask the hub for a file's size, hash and address."""
    from huggingface_hub import constants, get_hf_file_metadata, hf_hub_url

    metadata = get_hf_file_metadata(hf_hub_url(source.repo, file))
    etag = metadata.etag or ""
    if metadata.size is None or not metadata.commit_hash or not _ETAG.fullmatch(etag):
        raise CheckpointError(
            f"{constants.ENDPOINT} does not answer like the Hugging Face hub (no size, commit or "
            f"tag for {source.repo}/{file}); check HF_ENDPOINT and the proxy"
        )
    known = source.sha256.get(file, "")
    # The hub's tag of a large file is its hash.
    told = etag if _SHA256.fullmatch(etag) else ""
    if known and told and known != told:
        raise CheckpointError(
            f"{source.repo}/{file} on the hub is not the file that promptseg knows (its sha256 is "
            f"{told}, not {known}); update promptseg, or give the path of weights you trust"
        )
    if home is None:
        # The layout that the hub documents under "Understand caching".
        storage = f"models--{source.repo.replace('/', '--')}"
        target = Path(constants.HF_HUB_CACHE).expanduser() / storage / "blobs" / etag
    else:
        target = home / file
    return Download(
        source, file, metadata.size, known or told, target, metadata.location, own=home is not None
    )


def _is_there(item: Download) -> bool:
    """Whether another run has fetched it meanwhile, or another file has the same content."""
    if item.own:
        return is_whole(item.target)
    return is_whole(item.target, item.file) and item.target.stat().st_size == item.size


def _fill(item: Download) -> None:
    """Complete the partial file."""
    from huggingface_hub import constants
    from huggingface_hub.file_download import http_get
    from huggingface_hub.utils import build_hf_headers  # type: ignore[attr-defined]

    if item.copied_from is not None:
        shutil.copyfile(item.copied_from, item.partial)
        return
    if item.partial.exists() and item.partial.stat().st_size > item.size:
        item.partial.unlink()
    headers = build_hf_headers()
    if urlsplit(item.url).netloc != urlsplit(constants.ENDPOINT).netloc:
        headers.pop("authorization", None)  # a signed address elsewhere must not see the token
    with item.partial.open("ab") as stream:
        http_get(
            item.url,
            stream,
            resume_size=item.done,
            headers=headers,
            expected_size=item.size,
            displayed_filename=f"{item.source.name}: {item.file}",
        )


def _check(item: Download) -> None:
    if not item.sha256:
        if not is_whole(item.partial, item.file):
            item.partial.unlink()
            raise CheckpointError(
                f"the download of {item.source.repo}/{item.file} is broken (it is not whole by "
                "its own format) and was removed; run the command again"
            )
        return
    found = hash_file(item.partial)
    if found != item.sha256:
        item.partial.unlink()
        raise CheckpointError(
            f"the download of {item.source.repo}/{item.file} is broken (its sha256 is "
            f"{found}, not {item.sha256}) and was removed; run the command again"
        )


def _drop_broken_link(item: Download) -> None:
    """Remove the cache's link to an incomplete file, which the library would keep."""
    cached = find_cached(item.source.repo, [item.file])
    if cached is not None and not is_whole(cached / item.file):
        (cached / item.file).unlink()


@contextmanager
def _told(source: WeightSource, file: str) -> Iterator[None]:
    """Raise any error as a CheckpointError: one line on what went wrong and what to do."""
    try:
        yield
    except CheckpointError:
        raise
    # The types of the library's request errors differ between its major versions.
    except Exception as error:
        raise CheckpointError(_describe(error, source, file)) from error


def _describe(error: Exception, source: WeightSource, file: str) -> str:
    from huggingface_hub import constants
    from huggingface_hub.errors import (
        EntryNotFoundError,
        GatedRepoError,
        LocalEntryNotFoundError,
        OfflineModeIsEnabled,
        RepositoryNotFoundError,
    )

    hub = constants.ENDPOINT
    if isinstance(error, OfflineModeIsEnabled):
        return f"HF_HUB_OFFLINE is set, and {source.name} is incomplete: unset it and run again"
    if isinstance(error, GatedRepoError):
        return (
            f"access to {source.repo} must be requested at {hub}/{source.repo}; then log in with "
            "`hf auth login` or set HF_TOKEN"
        )
    if isinstance(error, RepositoryNotFoundError):
        return (
            f"{hub} has no {source.repo}, or you have no access to it: check HF_ENDPOINT and "
            "HF_TOKEN"
        )
    reason = " ".join(str(error).split())[:160] or type(error).__name__
    if isinstance(error, LocalEntryNotFoundError):  # the hub was not reached
        pass
    elif isinstance(error, EntryNotFoundError):
        return f"{hub} has no {file} in {source.repo}: update promptseg, or check HF_ENDPOINT"
    elif isinstance(error, OSError) and error.errno and not isinstance(error, ConnectionError):
        return f"{source.name}: {file} cannot be written ({reason}); fix that and run again"
    return (
        f"{source.repo}/{file} cannot be fetched from {hub} ({reason}); check the network or set "
        "HF_ENDPOINT to a mirror, and run the command again: it resumes where it stopped"
    )
