"""What a command may be given as images: patterns, standard input, URLs, pages and frames."""

from __future__ import annotations

import io
import json
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from pycocotools.coco import COCO
from typer.testing import CliRunner

from promptseg.apps.cli import sources
from promptseg.apps.cli.main import app
from promptseg.apps.cli.pictures import find_pictures
from promptseg.apps.image_names import ENDINGS
from promptseg.models.errors import InputError
from promptseg.pipeline.images import FORMATS

COLOURS = ("red", "green", "blue")


def picture(colour: str = "red", size: tuple[int, int] = (16, 12)) -> Image.Image:
    return Image.new("RGB", size, colour)


def png(colour: str = "red") -> bytes:
    stream = io.BytesIO()
    picture(colour).save(stream, "PNG")
    return stream.getvalue()


@pytest.fixture
def album(run) -> Path:
    """Photographs in folders, and what is none, in the folder that the command runs in."""
    for name in ("album/2.jpg", "album/10.jpg", "album/deep/a.png", "album/deep/er/b.jpg"):
        Path(name).parent.mkdir(parents=True, exist_ok=True)
        picture().save(name)
    Path("album/notes.txt").write_text("no picture")
    return Path("album")


def images_of(done) -> list[str]:
    assert done.exit_code == 0, done.output
    return [json.loads(line)["image"] for line in done.stdout.splitlines()]


def refused(done, *says: str) -> None:
    assert done.exit_code == 2, done.output
    assert len(done.stderr.splitlines()) == 1
    assert all(part in done.stderr for part in says), done.stderr
    assert not Path("promptseg-output").exists()


@pytest.mark.parametrize(
    ("pattern", "found"),
    [
        ("album/*.jpg", ["album/2.jpg", "album/10.jpg"]),
        ("album/*", ["album/2.jpg", "album/10.jpg"]),
        ("album/[0-9].jpg", ["album/2.jpg"]),
        ("album/**/*.jpg", ["album/2.jpg", "album/10.jpg", "album/deep/er/b.jpg"]),
        ("**/?.png", ["album/deep/a.png"]),
    ],
)
def test_a_quoted_pattern_is_expanded(run, fake_pipeline, album, pattern, found) -> None:
    assert images_of(run("segment", pattern, "-t", "cat", "--json")) == found


def test_a_pattern_is_a_run_named_below_its_fixed_part(run, fake_pipeline, album) -> None:
    assert run("segment", "album/**/*.jpg", "-t", "cat", "--out", "out").exit_code == 0
    places = {str(path.parent) for path in Path("out").rglob("result.json")}
    assert places == {"out/2", "out/10", "out/deep/er/b"}
    # A second run does not take the answers of the first for photographs.
    again = run("segment", "**/*.png", "-t", "cat", "--json", "--out", "out")
    assert images_of(again) == ["album/deep/a.png"]


def test_a_file_whose_name_looks_like_a_pattern_is_a_file(run, fake_pipeline, album) -> None:
    picture().save("album/[1].jpg")
    assert images_of(run("segment", "album/[1].jpg", "-t", "cat", "--json")) == ["album/[1].jpg"]


@pytest.mark.parametrize(
    ("pattern", "says"),
    [
        ("album/*.webp", "nothing matches 'album/*.webp'"),
        ("nowhere/**/*.jpg", "nothing matches 'nowhere/**/*.jpg'"),
        ("album/*.txt", "1 file matches 'album/*.txt', none of which is an image"),
    ],
)
def test_a_pattern_without_images_is_refused(run, album, pattern, says) -> None:
    refused(run("segment", pattern, "-t", "cat"), says, "check the pattern")


def test_standard_input_is_one_image(run, fake_pipeline) -> None:
    done = CliRunner().invoke(app, ["segment", "-", "-t", "cat"], input=png())
    assert done.exit_code == 0, done.output
    record = json.loads(Path("promptseg-output/stdin/result.json").read_text())
    assert record["image"] == "-"
    assert [item["label"] for item in record["masks"]] == ["cat"]
    done = CliRunner().invoke(
        app, ["segment", "-", "-t", "cat", "--format", "labelme", "--out", "out"], input=png()
    )
    assert done.exit_code == 0, done.output
    assert Path("out/labelme/stdin.json").is_file()


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"", "standard input is empty"),
        (b"no picture", "is not an image"),
        (png()[:45], "is damaged or truncated"),
        (b"x" * 2000, "standard input has more than 0.001 MB"),
    ],
)
def test_standard_input_without_an_image_is_refused(run, monkeypatch, content, says) -> None:
    monkeypatch.setattr(sources, "MOST_BYTES", 1000)
    monkeypatch.setattr(sources._check_size, "__defaults__", (1000,))
    refused(CliRunner().invoke(app, ["segment", "-", "-t", "cat"], input=content), says)


def test_standard_input_is_given_once(run) -> None:
    refused(run("segment", "-", "-", "-t", "cat"), "- is given twice")


class _Handler(BaseHTTPRequestHandler):
    """Serves a photograph, and what must not be taken for one."""

    def do_GET(self) -> None:
        path = self.path.partition("?")[0]
        if path == "/slow":
            self.send_response(200)
            self.flush_headers()
            while not self.server.closing:  # type: ignore[attr-defined]
                self.wfile.write(b"X-Header: a\r\n")
                time.sleep(0.05)
        elif path in ("/ftp", "/file", "/moved"):
            goal = {"/ftp": "ftp://127.0.0.1/a", "/file": "file:///etc/passwd", "/moved": "/a.png"}
            self.send_response(302)
            self.send_header("Location", goal[path])
            self.end_headers()
        elif path == "/gone":
            self.send_error(404)
        else:
            content = {"/a.png": png(), "/large": b"x" * 300_000}.get(path, b"no picture")
            self.send_response(200)
            self.end_headers()
            self.wfile.write(content)

    def log_message(self, format: str, *args: object) -> None:
        """Keep quiet."""


@pytest.fixture
def site(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """Address of a local server."""
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Handler)
    server.closing = False  # type: ignore[attr-defined]
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.closing = True  # type: ignore[attr-defined]
    server.shutdown()
    server.server_close()
    thread.join()


def test_a_url_is_fetched_if_it_is_allowed(run, fake_pipeline, site) -> None:
    urls = [f"{site}/a.png", f"{site}/a.png?size=2", f"{site}/moved"]
    done = run("segment", *urls, "-t", "cat", "--allow-urls", "--out", "out", "--format", "coco")
    assert done.exit_code == 0, done.output
    names = [item["file_name"] for item in COCO("out/coco/annotations.json").imgs.values()]
    assert len(set(names)) == 3
    assert names[0].endswith("a.png")
    assert images_of(run("segment", urls[0], "-t", "cat", "--allow-urls", "--json")) == urls[:1]


def test_a_url_is_refused_unless_it_is_allowed(run, site) -> None:
    url = f"{site}/a.png"
    refused(run("segment", url, "-t", "cat"), f"{url!r} is a URL; --allow-urls fetches it")


@pytest.mark.parametrize("url", ["ftp://host/a.png", "file:///etc/passwd", "s3://bucket/a.png"])
def test_only_http_and_https_are_fetched(run, url) -> None:
    done = run("segment", url, "-t", "cat", "--allow-urls")
    refused(done, f"{url!r} cannot be fetched: only http and https are")


@pytest.mark.parametrize(
    ("path", "says"),
    [
        ("/gone", "cannot be fetched (404 Not Found)"),
        ("/ftp", "cannot be fetched"),
        ("/file", "cannot be fetched"),
        ("/text", "is not an image"),
    ],
)
def test_what_a_url_does_not_hold_is_told(run, fake_pipeline, site, path, says) -> None:
    done = run("segment", f"{site}{path}", "-t", "cat", "--allow-urls", "--out", "out")
    assert done.exit_code == 2, done.output
    assert says in done.stderr
    assert site in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_fetching_is_bounded_in_size_and_time(site) -> None:
    with pytest.raises(InputError, match=r"more than 0\.1 MB"):
        sources.fetch(f"{site}/large", most=100_000)
    assert sources.fetch(f"{site}/large", most=300_000) == b"x" * 300_000
    with pytest.raises(InputError, match=r"took longer than 0\.3 s"):
        sources.fetch(f"{site}/slow", seconds=0.3)
    with pytest.raises(InputError, match="cannot be fetched"):
        sources.fetch("http://127.0.0.1:1/a.png")


def scans(tmp_path: Path) -> dict[str, Path]:
    """Files of three pages and frames, each of one colour."""
    pages = [picture(colour) for colour in COLOURS]
    paths = {kind: tmp_path / f"scan.{kind}" for kind in ("tiff", "gif", "png", "webp")}
    for kind, path in paths.items():
        lossless = {"lossless": True} if kind == "webp" else {}
        pages[0].save(path, save_all=True, append_images=pages[1:], **lossless)
    return paths


@pytest.mark.parametrize(
    ("kind", "named"), [("tiff", "page"), ("gif", "frame"), ("png", "frame"), ("webp", "frame")]
)
def test_every_page_and_frame_is_an_image(run, fake_pipeline, tmp_path, kind, named) -> None:
    path = scans(tmp_path)[kind]
    done = run("segment", path, "-t", "cat", "--out", "one")
    left = f"scan.{kind}: 2 further {named}s are left out; --frames segments all"
    assert left in done.stdout.splitlines()
    done = run("segment", path, "-t", "cat", "--frames", "--out", "all", "--json")
    assert done.exit_code == 0, done.output
    told = [json.loads(line) for line in done.stdout.splitlines()]
    assert [(item["image"], item["frame"]) for item in told] == [(str(path), i) for i in range(3)]
    for i, colour in enumerate(COLOURS):
        overlay = Path(f"all/scan-{named}{i + 1}/overlay.png")
        right = np.asarray(Image.open(overlay).convert("RGB"))[6, 14]  # beside the mask
        np.testing.assert_allclose(right, picture(colour).getpixel((14, 6)), atol=1)
    assert "left out" not in done.stderr
    again = run("segment", path, "-t", "cat", "--frames", "--out", "all", "--resume", "--json")
    assert (again.exit_code, again.stdout) == (0, "")


def test_pages_are_exported_by_their_names_and_a_file_of_that_name_is_not_replaced(
    run, fake_pipeline, tmp_path
) -> None:
    path = scans(tmp_path)["tiff"]
    done = run("segment", path, "-t", "cat", "--frames", "--format", "labelme", "--out", "out")
    assert done.exit_code == 0, done.output
    names = sorted(item.name for item in Path("out/labelme").iterdir())
    assert names == [f"scan-page{i}.json" for i in (1, 2, 3)]
    picture().save(tmp_path / "scan-page2.tiff")
    both = (path, tmp_path / "scan-page2.tiff")
    done = run("segment", *both, "-t", "cat", "--frames", "--format", "labelme", "--out", "two")
    assert done.exit_code == 2
    assert "would be called like another image of this run" in done.stderr
    assert not Path("two/labelme").exists()


def test_the_endings_of_folders_are_those_of_what_is_read() -> None:
    Image.init()
    known = {
        ending[1:] for ending, kind in Image.registered_extensions().items() if kind in FORMATS
    }
    # MPO begins with a JPEG; HEIC is read by pillow-heif.
    assert set(ENDINGS) == known | {"mpo", "heic", "heif", "hif"}


@pytest.mark.parametrize("ending", ["avif", "jfif", "JPE", "jp2", "ppm", "heic", "hif"])
def test_a_folder_of_any_ending_that_is_read(run, fake_pipeline, ending) -> None:
    from pillow_heif import from_pillow

    Path("album").mkdir()
    path = Path(f"album/photo.{ending}")
    if ending in ("heic", "hif"):
        from_pillow(picture()).save(path, format="HEIF")
    else:
        picture().save(path, "JPEG" if ending == "jfif" else None)
    assert images_of(run("segment", "album", "-t", "cat", "--json")) == [str(path)]


@pytest.mark.parametrize(
    "arguments",
    [
        ("photo.png", "--text", "cat", "dog"),
        ("--text", "cat", "dog"),
        ("--text", "cat", "dog", "photo.png"),
    ],
)
def test_a_second_word_after_text_is_not_taken_for_an_image(run, photo, arguments) -> None:
    done = run("segment", *(str(photo) if item == "photo.png" else item for item in arguments))
    refused(done, "'dog' is not an image or a folder", "--text cat --text dog")


def test_several_words_are_quoted_in_the_remedy(run, photo) -> None:
    done = run("segment", photo, "--negative", "toy car", "toy dog", "-t", "cat")
    refused(done, "'toy dog'", '--text cat --text "toy dog"')


def test_a_pattern_with_a_null_byte_or_a_long_name_is_refused() -> None:
    with pytest.raises(InputError, match="nothing matches"):
        find_pictures(["*" * 300 + ".jpg"], None)
