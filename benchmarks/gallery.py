"""Make docs/gallery.md and its pictures by running the pocket preset on free photographs.

    python benchmarks/gallery.py [--out docs] [--photos FOLDER]

The page's commands are built from the queries that were run, and its figures come from that run.
With --photos, the photographs are also written to a folder, so that the commands can be tried.
"""

from __future__ import annotations

import argparse
import io
import shlex
import textwrap
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw
from skimage import data

import promptseg
from promptseg.pipeline.drawing import draw_overlay
from promptseg.pipeline.result import Result

ROOT = Path(__file__).resolve().parents[1]
PICTURES = Path("images", "gallery")  # relative to the page's folder
LONGEST_SIDE = 640
MOST_BYTES = 80_000
LONGEST_TABLE = 4

CREDITS = """\
The photographs come with scikit-image: Chelsea the cat by Stéfan van der Walt (CC0), the cup by
Rachel Michetti, courtesy of Pikolo Espresso Bar (CC0), the astronaut Eileen Collins (NASA, public
domain) and the launch of a Falcon 9 (SpaceX, public domain)."""

INTRODUCTION = f"""\
# Gallery

What the preset `pocket` answers, made by `python benchmarks/gallery.py`: commands, pictures and
figures are of one run, and none was touched up. With `--photos FOLDER` the script also writes the
photographs, to try the commands on. [thresholds.md](thresholds.md) tells what the scores mean.

{CREDITS}
"""


@dataclass(frozen=True)
class Query:
    """A query on one photograph.

    Attributes:
        photo: Name of the photograph.
        text: Phrases to look for.
        negative: Phrases that the masks must not match.
        points: Clicks, (x, y, label) in pixels.
        box: XYXY in pixels.
        example: Name of the photograph that shows an example, and the box around the example.
        label: Label of the example.
        everything: Whether to segment everything, without a query.
        apart: Whether each mask gets its own picture.
    """

    photo: str
    text: tuple[str, ...] = ()
    negative: tuple[str, ...] = ()
    points: tuple[tuple[int, int, int], ...] = ()
    box: tuple[int, int, int, int] | None = None
    example: tuple[str, tuple[int, int, int, int]] | None = None
    label: str = ""
    everything: bool = False
    apart: bool = False

    @property
    def command(self) -> str:
        """The same query on the command line."""
        words = ["promptseg", "everything" if self.everything else "segment", f"{self.photo}.png"]
        for option, phrases in (("-t", self.text), ("--negative", self.negative)):
            words += [word for phrase in phrases for word in (option, phrase)]
        for x, y, label in self.points:
            words += ["--point", f"{x},{y}" if label else f"{x},{y},0"]
        if self.box is not None:
            words += ["--box", ",".join(map(str, self.box))]
        if self.example is not None:
            photo, box = self.example
            words += ["--reference", f"{photo}.png", "--reference-box", ",".join(map(str, box))]
            words += ["--reference-label", self.label]
        return shlex.join(words)


@dataclass(frozen=True)
class Scene:
    """A section of the page.

    Attributes:
        title: The section's heading.
        words: Text that explains the pictures.
        queries: The queries, in order.
    """

    title: str
    words: str
    queries: tuple[Query, ...]


CUP = (140, 25, 400, 245)
SCENES = (
    Scene(
        "Phrases",
        "Each phrase is looked for on its own and keeps its label; masks of different phrases may "
        "overlap.",
        (Query("astronaut", text=("person", "hair", "shuttle")),),
    ),
    Scene(
        "A colour",
        "The noun is looked for, then the colour in the pixels of what was found. The colour that "
        "is not there gives nothing, and the reason.",
        (Query("astronaut", text=("orange clothes", "green clothes")),),
    ),
    Scene(
        "What it must not be",
        'A general word finds the cat; with "cat" as a negative, the mask is dropped, and the '
        "reason is told.",
        (
            Query("cat", text=("animal",)),
            Query("cat", text=("animal",), negative=("cat",)),
        ),
    ),
    Scene(
        "An example",
        "The box shows a cup on one picture. It is found on another and not where there is none. "
        "(An easy case: the other picture is the same cup, mirrored, turned, and smaller.)",
        (
            Query("turned", example=("coffee", CUP), label="cup"),
            Query("cat", example=("coffee", CUP), label="cup"),
        ),
    ),
    Scene(
        "Clicks",
        "A lone click may mean the whole, a part or a subpart, and gives a mask for each that "
        "differs: here the cup, and the cup with its saucer. A second click, on what does not "
        "belong to it (red), leaves one mask.",
        (
            Query("coffee", points=((300, 180, 1),), apart=True),
            Query("coffee", points=((300, 180, 1), (300, 300, 0))),
        ),
    ),
    Scene("A box", "One mask for each box.", (Query("rocket", box=(300, 130, 350, 370)),)),
    Scene(
        "Everything",
        "Without a query, a grid of clicks finds what it can.",
        (Query("astronaut", everything=True),),
    ),
    Scene(
        "Nothing here",
        "What is not in the picture gives an empty answer. It is no error: the program ends with 0 "
        "and says why it found nothing.",
        (Query("cat", text=("zebra",)),),
    ),
    Scene(
        "What goes wrong",
        'The gate errs in both directions, and masks take in too much. "Spoon" barely passes and '
        'lands on the table, "cup" takes the saucer with it; their low scores are the warning. '
        '"Astronaut" finds the shuttle, "tower" the sky beside the thin lattices, and "hair", '
        "above, most of the face and the dark of the collar.",
        (
            Query("coffee", text=("cup", "spoon")),
            Query("astronaut", text=("astronaut",)),
            Query("rocket", text=("tower",)),
        ),
    ),
)


def photograph(name: str) -> NDArray[np.uint8]:
    """Return a scikit-image photograph (H, W, 3) uint8; scikit-image's functions are untyped."""
    read: Callable[[], NDArray[np.uint8]] = getattr(data, name)
    return read()


class Studio:
    """The photographs and the preset that answers queries about them."""

    @cached_property
    def photos(self) -> Mapping[str, NDArray[np.uint8]]:
        """Photographs (H, W, 3) uint8 by name."""
        coffee = photograph("coffee")
        mirrored = Image.fromarray(np.ascontiguousarray(coffee[:, ::-1]))
        turned = mirrored.rotate(12, Image.Resampling.BICUBIC, fillcolor=(120, 70, 30))
        return {
            "astronaut": photograph("astronaut"),
            "cat": photograph("chelsea"),
            "coffee": coffee,
            "rocket": photograph("rocket"),
            "turned": np.asarray(turned.resize((480, 320), Image.Resampling.LANCZOS)),
        }

    @cached_property
    def pipe(self) -> promptseg.Pipeline:
        """The pocket preset."""
        return promptseg.load("pocket", dtype="fp32")

    def ask(self, query: Query) -> Result:
        """Answer a query."""
        photo = self.photos[query.photo]
        if query.everything:
            return self.pipe.everything(photo)
        reference = None
        if query.example is not None:
            name, box = query.example
            reference = promptseg.Reference(self.photos[name], box=box, label=query.label)
        return self.pipe(
            photo,
            text=query.text or None,
            negative_text=query.negative or None,
            reference=reference,
            points=[point[:2] for point in query.points] or None,
            point_labels=[point[2] for point in query.points] or None,
            boxes=None if query.box is None else [query.box],
        )


def main() -> None:
    """Parse the arguments, then write the page and its pictures."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--out", type=Path, default=ROOT / "docs", help="folder for gallery.md")
    parser.add_argument("--photos", type=Path, help="folder to write the photographs to")
    options = parser.parse_args()
    studio = Studio()
    if options.photos is not None:
        options.photos.mkdir(parents=True, exist_ok=True)
        for name, photo in studio.photos.items():
            Image.fromarray(photo).save(options.photos / f"{name}.png")
    write(studio, SCENES, options.out)


def write(studio: Studio, scenes: Sequence[Scene], out: Path) -> None:
    """Write gallery.md to a folder and its pictures below it; old pictures are deleted."""
    folder = out / PICTURES
    folder.mkdir(parents=True, exist_ok=True)
    for old in folder.glob("*.jpg"):
        old.unlink()
    page = "\n".join([INTRODUCTION, *(line for s in scenes for line in section(studio, s, folder))])
    (out / "gallery.md").write_text(page, encoding="utf-8")


def section(studio: Studio, scene: Scene, folder: Path) -> Iterator[str]:
    """Run a scene's queries, save the pictures and yield the section's paragraphs."""
    yield f"## {scene.title}\n\n{paragraph(scene.words)}\n"
    stem = scene.title.lower().replace(" ", "-")
    for number, query in enumerate(scene.queries, 1):
        result = studio.ask(query)
        parts = list(result) if query.apart else [result]
        pictures = {f"{stem}-{number}": draw(studio, query, parts[0])}
        for i, part in enumerate(parts[1:], 2):
            pictures[f"{stem}-{number}-{i}"] = draw(studio, query, part)
        if query.example is not None and number == 1:
            name, box = query.example
            example = mark(Image.fromarray(studio.photos[name]), (), box)
            pictures = {f"{stem}-example": example, **pictures}
        yield f"    {query.command}\n"
        links = []
        for name, picture in pictures.items():
            save(picture, folder / f"{name}.jpg")
            links.append(f"![{alternative(query, name)}]({PICTURES.as_posix()}/{name}.jpg)")
        yield "\n".join(links) + "\n"
        yield from figures(result)


def paragraph(words: str) -> str:
    """Wrap text to the page's width."""
    return textwrap.fill(words, 100, break_long_words=False, break_on_hyphens=False)


def alternative(query: Query, name: str) -> str:
    """Return the alternative text of a picture."""
    if name.endswith("-example"):
        return "the example"
    return f"the answer to: {query.command}".replace('"', "")


def figures(result: Result) -> Iterator[str]:
    """Yield the table of masks and the reasons for those that were dropped."""
    if len(result):
        rows = [
            f"| {i} | {result.labels[i - 1]} | {result.scores[i - 1]:.2f} "
            f"| {result.iou_predictions[i - 1]:.2f} | {result.stability_scores[i - 1]:.2f} "
            f"| {result.prompt_scores[i - 1]:.2f} |"
            for i in range(1, min(len(result), LONGEST_TABLE) + 1)
        ]
        heading = "| mask | label | score | IoU prediction | stability | prompt |"
        yield "\n".join([heading, "|---|---|---|---|---|---|", *rows]) + "\n"
        if len(result) > LONGEST_TABLE:
            yield f"And {len(result) - LONGEST_TABLE} more.\n"
    else:
        yield "Nothing found.\n"
    if result.rejected:
        reasons = [f"- {item.label}: {item.reason}" for item in result.rejected]
        yield "\n".join(["Dropped:\n", *reasons]) + "\n"


def draw(studio: Studio, query: Query, result: Result) -> Image.Image:
    """Draw a result with the query's clicks and box."""
    overlay = Image.fromarray(draw_overlay(studio.photos[query.photo], result))
    return mark(overlay, query.points, query.box)


def mark(
    picture: Image.Image,
    points: Sequence[tuple[int, int, int]],
    box: tuple[int, int, int, int] | None,
) -> Image.Image:
    """Draw clicks (green on the object, red off it) and a box."""
    pen = ImageDraw.Draw(picture)
    for x, y, label in points:
        colour = "#00C000" if label else "#E00000"
        pen.ellipse((x - 7, y - 7, x + 7, y + 7), fill=colour, outline="white", width=2)
    if box is not None:
        pen.rectangle(box, outline="#FFE000", width=3)
    return picture


def save(picture: Image.Image, path: Path) -> None:
    """Write a JPEG, reducing its size and quality to keep the file small."""
    picture.thumbnail((LONGEST_SIDE, LONGEST_SIDE), Image.Resampling.LANCZOS)
    for quality in (85, 80, 75, 70, 60, 50):
        stream = io.BytesIO()
        picture.save(stream, "JPEG", quality=quality, optimize=True)
        if stream.tell() <= MOST_BYTES:
            break
    path.write_bytes(stream.getvalue())


if __name__ == "__main__":
    main()
