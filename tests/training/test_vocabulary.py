"""What is there, what is not and what is unknown, on pictures made by hand."""

from __future__ import annotations

from pathlib import Path

import pytest
from pictures import Entry
from vocabulary import Vocabulary, concept_of, labels_of, phrases_of, with_general
from words import (
    ALIKE,
    ANIMALS,
    COCO_THINGS,
    EXHAUSTIVE,
    GENERAL,
    HELD_OUT,
    OWN_ABSENT,
    SYNONYMS,
    UNSURE,
    VAGUE,
    VOC,
)

from promptseg.apps.evaluation.index_folder import Region, Sample


def entry_of(source: str, words: tuple[str, ...] = (), **labels: tuple[int, ...]) -> Entry:
    """A picture of a source with the ids of its labels; "_" stands for a blank."""
    regions = tuple(Region(k.replace("_", " "), ids, True, None) for k, ids in labels.items())
    sample = Sample(Path("a.png"), Path("a_ids.png"), source, "train", regions)
    return Entry(sample, tuple(() for _ in regions), tuple((word, ()) for word in words))


def present(vocabulary: Vocabulary, entry: Entry) -> dict[str, tuple[int, ...]]:
    regions = [(region.label, region.ids) for region in entry.sample.regions]
    return vocabulary.present(entry.sample.source, regions)


def absent(vocabulary: Vocabulary, entry: Entry) -> dict[str, float]:
    return vocabulary.absent(entry.sample.source, labels_of(entry))


def test_labels_of_one_thing_are_one_concept() -> None:
    assert concept_of("couch") == concept_of("sofa") == "sofa"
    assert concept_of("aeroplane") == "airplane"
    assert concept_of("wall-brick") == "wall"
    assert concept_of("gnome") == "gnome"


def test_phrases_are_the_words_that_people_use() -> None:
    assert phrases_of("sofa") == ("sofa", "couch", "settee")
    assert phrases_of("wall") == ("wall",)
    assert phrases_of("gnome") == ("gnome",)


def test_general_words_include_a_concept() -> None:
    assert set(with_general("apple")) == {"apple", "fruit", "food"}
    assert with_general("gnome") == ("gnome",)


def test_every_word_belongs_to_one_concept() -> None:
    words = [word for words in SYNONYMS.values() for word in words]
    assert len(words) == len(set(words))
    assert not set(words) & set(SYNONYMS)
    listed = [*VOC, *COCO_THINGS, *ANIMALS, *HELD_OUT, *GENERAL]
    for table in (GENERAL, EXHAUSTIVE, UNSURE):
        listed += [concept for group in table.values() for concept in group]
    listed += [concept for group in ALIKE for concept in group]
    for concept in listed:
        assert concept_of(concept) == concept, f"{concept} is a word, not a concept"
        assert concept == concept.strip()
        assert concept
    assert len(COCO_THINGS) == 80


def test_what_is_held_out_stays_so() -> None:
    assert {
        "airplane", "bird", "elephant", "teddy bear", "broccoli", "orange", "hat", "remote",
    } == HELD_OUT  # fmt: skip


def test_the_concepts_of_a_source_are_its_labels_and_what_it_always_labels() -> None:
    entries = [
        entry_of("coco", couch=(1,), gnome=(2,)),
        entry_of("coco", teddy_bear=(1,), remote_control=(2,)),
        entry_of("mine", couch=(1,), goblin=(2,)),
    ]
    vocabulary = Vocabulary.of(entries)
    assert vocabulary.named.keys() == {"coco", "mine"}
    assert vocabulary.named["mine"] == {"sofa", "furniture", "goblin"}
    assert vocabulary.exhaustive["mine"] == frozenset()
    assert {"sofa", "gnome", "furniture"} == vocabulary.named["coco"]
    assert {"dog", "person", "toaster", "animal"} <= vocabulary.exhaustive["coco"]
    assert vocabulary.concepts() == sorted(
        vocabulary.exhaustive["coco"] | {"sofa", "gnome", "goblin", "furniture"}
    )


def test_what_is_held_out_or_vague_is_neither_there_nor_absent() -> None:
    seen = entry_of("coco", aeroplane=(1,), teddy_bear=(2,), dog=(3,), label=(4,))
    other = entry_of("coco", cat=(1,))
    vocabulary = Vocabulary.of([seen, other])
    assert not (HELD_OUT | VAGUE) & set(vocabulary.concepts())
    # An airplane is a vehicle all the same.
    assert present(vocabulary, seen) == {"dog": (3,), "animal": (3,), "vehicle": (1,)}
    assert not HELD_OUT & absent(vocabulary, other).keys()
    everything = Vocabulary.of([seen, other], without=frozenset())
    assert present(everything, seen)["airplane"] == (1,)
    assert "airplane" in absent(everything, other)


def test_what_is_there_has_the_ids_of_all_its_labels_and_of_what_it_includes() -> None:
    entry = entry_of("coco", man=(4, 2), woman=(3,), dog=(7,), cat=(6,), car=(9,))
    assert present(Vocabulary.of([entry]), entry) == {
        "person": (2, 3, 4),
        "dog": (7,),
        "cat": (6,),
        "animal": (6, 7),
        "car": (9,),
        "vehicle": (9,),
    }


def test_what_is_there_is_not_absent_and_what_the_source_does_not_label_is_unknown() -> None:
    entries = [
        entry_of("voc", dog=(1,)),
        entry_of("mine", dog=(1,)),
        entry_of("mine", gnome=(1,)),
    ]
    vocabulary = Vocabulary.of(entries)
    gone = absent(vocabulary, entries[0])
    assert not {"dog", "animal"} & gone.keys()
    assert {"cat", "person", "vehicle"} <= gone.keys()
    assert "gnome" not in gone
    assert set(gone.values()) == {1.0}
    assert list(gone) == sorted(gone)
    # The other source says nothing of cats, nor whether a gnome is an animal.
    assert absent(vocabulary, entries[1]) == {"gnome": 1.0}
    assert absent(vocabulary, entries[2]) == {"dog": 1.0}


def test_things_alone_say_nothing_of_stuff() -> None:
    entries = [
        entry_of("coco-things", cup=(1,)),
        entry_of("coco-things", table=(1,)),
        entry_of("coco", sky=(1,), table=(2,)),
    ]
    vocabulary = Vocabulary.of(entries)
    gone = absent(vocabulary, entries[0])
    assert "sky" not in gone
    assert "dining table" not in gone
    assert "food" not in gone
    assert {"toaster", "car", "animal"} <= gone.keys()
    assert "dining table" in present(vocabulary, entries[1])


def test_a_label_that_annotators_mix_up_with_one_that_is_there_counts_less() -> None:
    entries = [
        entry_of("ccp", shirt=(1,), pants=(2,)),
        entry_of("ccp", blouse=(1,), jeans=(2,), necklace=(3,), trousers=(4,)),
    ]
    gone = absent(Vocabulary.of(entries), entries[0])
    assert {c: gone[c] for c in ("blouse", "jeans", "necklace", "cat")} == {
        "blouse": 0.4,
        "jeans": 0.4,
        "necklace": 1.0,
        "cat": 1.0,
    }
    assert "clothes" not in gone


def test_other_words_of_a_weak_source_count_little_or_nothing() -> None:
    shelf = [entry_of("grocery", ("apple",)), entry_of("grocery", ("leek",))]
    gone = absent(Vocabulary.of(shelf), shelf[0])
    assert "leek" not in gone  # it may lie beside the apples
    assert gone["dog"] == 1
    alone = [entry_of("caltech101", ("accordion",)), entry_of("caltech101", ("anchor",))]
    gone = absent(Vocabulary.of(alone), alone[0])
    assert gone["anchor"] == OWN_ABSENT["caltech101"] < 1
    assert "accordion" not in gone


@pytest.mark.parametrize("source", sorted(EXHAUSTIVE))
def test_a_picture_of_nothing_lacks_all_that_its_source_labels(source: str) -> None:
    empty = entry_of(source)
    vocabulary = Vocabulary.of([empty])
    assert present(vocabulary, empty) == {}
    assert absent(vocabulary, empty).keys() == (
        EXHAUSTIVE[source] - HELD_OUT - UNSURE.get(source, frozenset())
    )
