"""`promptseg segment` with references and concepts."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from skimage import data

from promptseg.models.pocket.features import PocketFeatures
from promptseg.pipeline.pipeline import Pipeline
from promptseg.pipeline.prompters.reference.concepts import save_concept
from promptseg.pipeline.prompters.reference.examples import Reference
from promptseg.pipeline.query import Query


@pytest.fixture(autouse=True)
def asked(pocket, loads, monkeypatch: pytest.MonkeyPatch) -> list[Query]:
    """The queries that the pocket preset was asked."""
    queries: list[Query] = []
    propose = Pipeline.propose

    def record(self, image, query, **options):
        queries.append(query)
        return propose(self, image, query)

    loads(pocket)
    monkeypatch.setattr(Pipeline, "propose", record)
    return queries


@pytest.fixture
def cat(tmp_path: Path) -> tuple[Path, Path]:
    """A cat's photograph at half size, and the mask of it that comes with the tests."""
    image = Image.fromarray(data.chelsea()).resize((226, 150))
    mask = Image.new("L", image.size)
    mask.paste(255, (45, 5, 180, 150))
    image.save(tmp_path / "cat.png")
    mask.save(tmp_path / "cat-mask.png")
    return tmp_path / "cat.png", tmp_path / "cat-mask.png"


def test_the_picture_itself_gives_its_mask(run, cat, tmp_path) -> None:
    image, mask = cat
    done = run(
        "segment", image, "--reference", image, "--reference-mask", mask, "--top-k", 1,
        "--out", tmp_path / "out",
    )  # fmt: skip
    assert done.exit_code == 0, done.output
    found = np.asarray(Image.open(tmp_path / "out/mask_01_reference.png"))
    np.testing.assert_array_equal(found, np.asarray(Image.open(mask)))


def test_examples_are_encoded_once_for_all_images(run, cat, shown, photo, monkeypatch) -> None:
    image, mask = cat
    red, _ = shown("red")
    seen = []
    extract = PocketFeatures.extract
    monkeypatch.setattr(
        PocketFeatures, "extract", lambda self, x: seen.append(x.shape) or extract(self, x)
    )
    done = run(
        "segment", photo, red, image, photo, "--json", "--reference", image, "--reference",
        image, "--reference-mask", mask, "--reference-mask", mask,
    )  # fmt: skip
    assert done.exit_code == 0, done.output
    assert seen == [(150, 226, 3)] * 2  # the images' own features come with their encoding
    assert len(done.stdout.splitlines()) == 4


def test_options_reach_the_pipeline(run, cat, shown, photo, asked) -> None:
    image, mask = cat
    red, red_mask = shown("red")
    blue, _ = shown("blue")
    done = run(
        "segment", photo, "--json",
        "--reference-point", "48,48", "--reference", red, "--reference", image,
        "--reference", red, "--reference-mask", mask, "--reference-box", "30,30,66,66",
        "--reference-label", "square", "--reference-label", "cat", "--reference-label", "square",
        "--negative-reference", blue, "--negative-reference-box", "30,30,66,66",
        "--negative-reference", red, "--negative-reference-mask", red_mask,
    )  # fmt: skip
    assert done.exit_code == 0, done.output
    (query,) = asked
    square, cat_found = query.reference
    assert (square.label, cat_found.label) == ("square", "cat")
    assert len(square.shots) == 2
    (shot,) = cat_found.shots
    np.testing.assert_array_equal(shot.mask.full(), np.asarray(Image.open(mask)) > 0)
    (negative,) = query.negative_reference
    assert negative.shots[1].mask.area == 32 * 32
    assert query.text == ()


def test_one_label_for_all_and_the_default(run, cat, photo, asked) -> None:
    image, mask = cat
    twice = ("--reference", image, "--reference-mask", mask) * 2
    run("segment", photo, "--json", *twice, "--reference-label", "puss")
    run("segment", photo, "--json", *twice)
    labels = [[item.label for item in query.reference] for query in asked]
    assert labels == [["puss"], ["reference"]]


def test_text_and_references_go_together_to_the_pipeline(run, cat, photo, asked) -> None:
    image, mask = cat
    done = run("segment", photo, "-t", "cat", "--reference", image, "--reference-mask", mask)
    assert done.exit_code == 0, done.output
    (query,) = asked
    assert query.text == ("cat",)
    assert [item.label for item in query.reference] == ["reference"]
    assert "nothing here that matches 'cat'" in done.stdout
    assert "matches 'reference'" not in done.stdout  # the example belongs to the phrase


def test_an_example_without_a_label_belongs_to_the_phrase(run, cat, photo, tmp_path) -> None:
    image, mask = cat
    shown = ("--reference", image, "--reference-mask", mask)
    done = run("segment", image, "-t", "cat", *shown, "--format", "coco", "--out", tmp_path / "out")
    assert done.exit_code == 0, done.output
    coco = json.loads((tmp_path / "out/coco/annotations.json").read_text(encoding="utf-8"))
    assert [item["name"] for item in coco["categories"]] == ["cat"]
    alone = run("segment", photo, *shown, "--out", tmp_path / "alone", "--min-score", 1)
    assert "matches 'reference'" in alone.output


def test_concepts_by_name_and_by_file(run, cat, pocket, asked, tmp_path) -> None:
    image, mask = cat
    for label, path in (("puss", Path("puss.safetensors")), ("grey", tmp_path / "g.safetensors")):
        encoded = pocket.encode_reference(Reference(image, mask, label=label))
        save_concept(path, encoded)
    done = run(
        "segment", image, "--json", "--concept", "puss", "--concept", tmp_path / "g.safetensors",
        "--concept", "puss", "--reference", image, "--reference-point", "100,90",
    )  # fmt: skip
    assert done.exit_code == 0, done.output
    (query,) = asked
    assert [item.label for item in query.reference] == ["puss", "grey", "reference"]
    found = json.loads(done.stdout)["masks"]
    assert {"puss", "grey"} <= {entry["label"] for entry in found}


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--reference", "IMAGE"], "--reference: 1 image and 0 regions; give each image one"),
        (["--reference-mask", "MASK"], "--reference: 0 images and 1 region"),
        (
            ["--reference", "IMAGE", "--reference-mask", "MASK", "--reference-point", "3,4"],
            "--reference: 1 image and 2 regions",
        ),
        (
            ["-t", "cat", "--negative-reference", "IMAGE"],
            "--negative-reference: 1 image and 0 regions; give each image one "
            "--negative-reference-mask,",
        ),
        (
            ["--negative-reference", "IMAGE", "--negative-reference-mask", "MASK"],
            "say what to look for: give --text, --reference, --concept, --point or --box",
        ),
        (
            ["--reference", "IMAGE", "--reference-mask", "MASK", "--reference-label", "a",
             "--reference-label", "b"],
            "--reference-label: 2 labels for 1 image; give one for all or one for each",
        ),
        (
            ["--reference", "IMAGE", "--reference-mask", "MASK", "--reference-label", " "],
            "the label of a reference must be a non-empty text",
        ),
        (
            ["--reference", "IMAGE", "--reference-box", "9,9,1,1"],
            "the box (9, 9, 1, 1) has its corners in the wrong order",
        ),
        (
            ["--reference", "IMAGE", "--reference-point", "4"],
            "--reference-point: '4' is not X,Y in pixels",
        ),
        (["--reference", "IMAGE", "--reference-point", "999,4"], "lies outside the image"),
        (["--reference", "no.jpg", "--reference-point", "9,4"], "'no.jpg' does not exist"),
        (["--reference", "IMAGE", "--reference-mask", "no.png"], "'no.png' does not exist"),
        (["--concept", "none"], "'none.safetensors' does not exist; promptseg concept"),
    ],
    ids=str,
)  # fmt: skip
def test_bad_input_is_one_line(run, cat, photo, arguments: list[str], says: str) -> None:
    names = {"IMAGE": str(cat[0]), "MASK": str(cat[1])}
    done = run("segment", photo, *(names.get(item, item) for item in arguments))
    assert done.exit_code == 2
    assert says in done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert done.stdout == ""
    assert not Path("promptseg-output").exists()


def test_a_concept_of_another_model_is_refused(run, cat, photo, pocket) -> None:
    image, mask = cat
    encoded = pocket.encode_reference(Reference(image, mask, label="puss"))
    for shot in encoded.shots:
        object.__setattr__(shot.features, "model_id", "dino")
    save_concept("puss.safetensors", encoded)
    done = run("segment", photo, photo, "--concept", "puss")
    assert done.exit_code == 2
    assert done.stderr == (
        "error: the concept 'puss.safetensors' was made by 'dino', and features of 'pocket' are "
        "compared here; make it anew from its pictures: promptseg concept save 'puss' --preset "
        "PRESET --reference IMAGE --mask MASK\n"
    )


def test_damaged_concepts_fail(run, photo) -> None:
    Path("text.safetensors").write_text("hello", encoding="utf-8")
    done = run("segment", photo, "--concept", "text")
    assert done.exit_code == 2
    assert "cannot be read as a concept file" in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_unknown_strategies_are_named(run, cat, photo, monkeypatch) -> None:
    monkeypatch.undo()
    image, mask = cat
    done = run(
        "segment", photo, "--reference", image, "--reference-mask", mask, "--strategy", "magic"
    )
    assert done.exit_code == 2
    assert "no matching strategy is called 'magic'; there are prototype, " in done.stderr
