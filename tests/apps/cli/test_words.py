"""What pocket knows, and what it takes a phrase for."""

from __future__ import annotations

import pytest

from promptseg.apps.cli.words import describe_relatives, describe_taught
from promptseg.models.errors import InputError
from promptseg.models.pocket.conse import Relative
from promptseg.pipeline.presets.pocket import PocketWords
from promptseg.pipeline.query import Query


@pytest.fixture(scope="module")
def words() -> PocketWords:
    return PocketWords.load()


def test_the_words_are_those_of_the_training(words) -> None:
    taught = dict(words.taught)
    assert taught["dog"] == taught["puppy"] > 400
    assert {"cat", "shoes", "person", "sky"} <= taught.keys()
    assert "teddy bear" not in taught  # held out of the training
    counts = [pictures for _, pictures in words.taught]
    assert counts == sorted(counts, reverse=True)


def test_a_phrase_is_looked_up_without_its_colour(words) -> None:
    taught, named = words.look_up("red dog")
    assert taught.word == "dog"
    assert taught.similarity == pytest.approx(1, abs=0.01)
    assert named.pictures is None


@pytest.mark.parametrize(
    ("phrase", "word"), [("bags", "bag"), ("a trouser", "trousers"), ("red ponies", "pony")]
)
def test_a_phrase_is_taken_in_the_number_that_was_taught(words, phrase, word) -> None:
    taught, _ = words.look_up(phrase)
    assert taught.word == word
    assert taught.similarity == pytest.approx(1, abs=0.01)


def test_words_are_told_in_groups() -> None:
    lines = describe_taught([("dog", 300), ("cat", 100), ("bus", 99), ("vase", 4)])
    assert lines == [
        "By 100 pictures or more:", "  dog, cat",
        "By 20 to 99 pictures:", "  bus",
        "By 1 to 4 pictures:", "  vase",
        "All other words go by the names of ImageNet's 1000 classes.",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("taught", "named", "told"),
    [
        (("shoes", 1.0, 7), ("shoe shop", 0.7), "x: taught by 7 pictures"),
        (
            ("shoes", 0.9, 1),
            ("clog", 0.8),
            "x: taken for 'shoes' (0.90), taught by 1 picture, and for ImageNet's 'clog' (0.80)",
        ),
        (("duck", 0.4, 7), ("drake", 0.81), "x: taken for ImageNet's 'drake' (0.81)"),
        (
            ("hat", 0.4, 7),
            ("Biro", 0.66),
            "x: no word like it is known; the nearest are 'hat' (0.40), taught by 7 pictures, and "
            "ImageNet's 'Biro' (0.66)",
        ),
    ],
)
def test_what_a_phrase_is_taken_for(taught, named, told) -> None:
    assert describe_relatives("x", Relative(*taught), Relative(*named)) == told


def test_the_command_tells_words_and_phrases(run) -> None:
    listed = run("models", "words")
    assert listed.exit_code == 0, listed.output
    assert "By 100 pictures or more:" in listed.output
    asked = run("models", "words", "puppy", "perro")
    assert asked.exit_code == 0, asked.output
    first, second = asked.stdout.splitlines()
    assert first.startswith("puppy: taught by ")
    assert second.startswith("perro: no word like it is known")


def test_altered_weights_are_one_line(run, monkeypatch, tmp_path) -> None:
    from promptseg.pipeline.presets import pocket

    monkeypatch.setattr(pocket, "WEIGHTS", tmp_path)
    done = run("models", "words")
    assert done.exit_code == 2
    assert "cannot be read: reinstall promptseg" in done.stderr
    assert "Traceback" not in done.output


@pytest.mark.parametrize(
    ("phrase", "rest"), [("not a dog", "dog"), ("Without the cat", "cat"), ("not shoes", "shoes")]
)
def test_a_negated_phrase_is_refused_with_its_remedy(phrase, rest) -> None:
    with pytest.raises(InputError, match=f"give '{rest}' as a negative phrase instead"):
        Query(phrase)


@pytest.mark.parametrize("phrase", ["notebook", "no entry sign", "knot", "nothing"])
def test_other_words_are_no_negation(phrase) -> None:
    assert Query(phrase).text == (phrase,)
