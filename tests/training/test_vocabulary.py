"""What is there, what is not and what is unknown, on samples made by hand."""

from __future__ import annotations

from pathlib import Path

import pytest
from vocabulary import (
    ALIKE,
    ANIMALS,
    EXHAUSTIVE,
    GENERAL,
    HELD_OUT,
    SYNONYMS,
    VOC,
    Vocabulary,
    concept_of,
    phrases_of,
)

from promptseg.apps.evaluation.index_folder import Region, Sample


def sample_of(source: str, **labels: tuple[int, ...]) -> Sample:
    """A sample of a source with the ids of its labels; "_" stands for a blank."""
    regions = [Region(k.replace("_", " "), ids, True, None) for k, ids in labels.items()]
    return Sample(Path("a.png"), Path("a_ids.png"), source, "train", tuple(regions))


def test_labels_of_one_thing_are_one_concept() -> None:
    assert concept_of("couch") == concept_of("sofa") == "sofa"
    assert concept_of("aeroplane") == "airplane"
    assert concept_of("wall-brick") == "wall"
    assert concept_of("zebra") == "zebra"


def test_phrases_are_the_words_that_people_use() -> None:
    assert phrases_of("sofa") == ("sofa", "couch")
    assert phrases_of("wall") == ("wall",)
    assert phrases_of("zebra") == ("zebra",)


def test_every_word_belongs_to_one_concept() -> None:
    words = [word for words in SYNONYMS.values() for word in words]
    assert len(words) == len(set(words))
    assert not set(words) & set(SYNONYMS)
    listed = [*VOC, *ANIMALS, *HELD_OUT, *GENERAL]
    listed += [c for group in (*GENERAL.values(), *ALIKE, *EXHAUSTIVE.values()) for c in group]
    for concept in listed:
        assert concept_of(concept) == concept, f"{concept} is a word, not a concept"


def test_the_concepts_of_a_source_are_its_labels_and_what_it_always_labels() -> None:
    samples = [
        sample_of("coco", couch=(1,), zebra=(2,)),
        sample_of("coco", teddy_bear=(1,), remote_control=(2,)),
        sample_of("mine", couch=(1,), gnome=(2,)),
    ]
    vocabulary = Vocabulary.of(samples)
    assert vocabulary.by_source.keys() == {"coco", "mine"}
    assert vocabulary.by_source["mine"] == {"sofa", "gnome"}
    assert {"sofa", "zebra", "dog", "person", "animal"} <= vocabulary.by_source["coco"]
    assert not {"clothes", "gnome", "couch"} & vocabulary.by_source["coco"]
    assert vocabulary.concepts() == sorted(
        vocabulary.by_source["coco"] | vocabulary.by_source["mine"]
    )


def test_what_is_held_out_is_neither_there_nor_absent() -> None:
    seen = sample_of("coco", aeroplane=(1,), teddy_bear=(2,), dog=(3,))
    other = sample_of("coco", cat=(1,))
    vocabulary = Vocabulary.of([seen, other])
    assert not HELD_OUT & set(vocabulary.concepts())
    # An airplane is a vehicle all the same.
    assert vocabulary.present(seen) == {"dog": (3,), "animal": (3,), "vehicle": (1,)}
    assert not HELD_OUT & vocabulary.absent(other).keys()
    everything = Vocabulary.of([seen, other], without=frozenset())
    assert everything.present(seen)["airplane"] == (1,)
    assert "airplane" in everything.absent(other)


def test_what_is_there_has_the_ids_of_all_its_labels_and_of_what_it_includes() -> None:
    sample = sample_of("coco", man=(4, 2), woman=(3,), dog=(7,), cat=(6,), car=(9,))
    assert Vocabulary.of([sample]).present(sample) == {
        "person": (2, 3, 4),
        "dog": (7,),
        "cat": (6,),
        "animal": (6, 7),
        "car": (9,),
        "vehicle": (9,),
    }


def test_what_is_there_is_not_absent_and_what_the_source_does_not_label_is_unknown() -> None:
    samples = [
        sample_of("voc", dog=(1,)),
        sample_of("mine", dog=(1,)),
        sample_of("mine", gnome=(1,)),
    ]
    vocabulary = Vocabulary.of(samples)
    absent = vocabulary.absent(samples[0])
    assert not {"dog", "animal"} & absent.keys()
    assert {"cat", "person", "vehicle"} <= absent.keys()
    assert "gnome" not in absent
    assert set(absent.values()) == {1.0}
    # The other source says nothing of cats, nor that a dog is an animal.
    assert vocabulary.absent(samples[1]) == {"gnome": 1.0}
    assert vocabulary.present(samples[1]) == {"dog": (1,)}
    assert list(absent) == sorted(absent)


def test_a_label_that_annotators_mix_up_with_one_that_is_there_counts_less() -> None:
    samples = [
        sample_of("ccp", shirt=(1,), pants=(2,)),
        sample_of("ccp", blouse=(1,), jeans=(2,), necklace=(3,), trousers=(4,)),
    ]
    absent = Vocabulary.of(samples).absent(samples[0])
    assert {c: absent[c] for c in ("blouse", "jeans", "necklace", "cat")} == {
        "blouse": 0.4,
        "jeans": 0.4,
        "necklace": 1.0,
        "cat": 1.0,
    }
    assert "clothes" not in absent


@pytest.mark.parametrize("source", ["voc", "ccp", "coco"])
def test_a_picture_of_nothing_lacks_all_that_its_source_labels(source: str) -> None:
    empty = sample_of(source)
    vocabulary = Vocabulary.of([empty])
    assert vocabulary.present(empty) == {}
    assert vocabulary.absent(empty).keys() == EXHAUSTIVE[source] - HELD_OUT
