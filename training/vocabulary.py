"""What the labels of the training data mean: which concepts a picture shows, lacks, or may show.

Labels of several sources that name the same thing are one concept. For each picture a concept is
present, known to be absent, or unknown, since no source labels everything.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from pictures import Entry
from words import ALIKE, EXHAUSTIVE, GENERAL, HELD_OUT, OWN_ABSENT, SYNONYMS, UNSURE, VAGUE

_CONCEPTS = {word: concept for concept, words in SYNONYMS.items() for word in words}
_LEAST_DOUBT = 0.4  # how much a concept like one that is there counts as absent


def concept_of(label: str) -> str:
    """The concept that a label of the data belongs to."""
    return _CONCEPTS.get(label, label)


def phrases_of(concept: str) -> tuple[str, ...]:
    """All words of a concept, the usual one first; without names that only a data set uses."""
    return (concept, *(word for word in SYNONYMS.get(concept, ()) if "-" not in word))


def with_general(concept: str) -> tuple[str, ...]:
    """A concept and the more general ones that include it."""
    return (concept, *(general for general, included in GENERAL.items() if concept in included))


def labels_of(entry: Entry) -> tuple[str, ...]:
    """All labels of a picture, with masks or without."""
    return (*(r.label for r in entry.sample.regions), *(word for word, _ in entry.words))


@dataclass(frozen=True)
class Vocabulary:
    """The concepts of each source.

    Attributes:
        labelled: Source -> the concepts of its labels.
        named: Source -> those, and more general words for them.
        exhaustive: Source -> the concepts that its pictures would be labelled with.
    """

    labelled: Mapping[str, frozenset[str]]
    named: Mapping[str, frozenset[str]]
    exhaustive: Mapping[str, frozenset[str]]

    @classmethod
    def of(cls, entries: Sequence[Entry], without: frozenset[str] = HELD_OUT) -> Vocabulary:
        """Collect the concepts of the pictures and what is known of their sources."""
        found: dict[str, set[str]] = {}
        for entry in entries:
            concepts = found.setdefault(entry.sample.source, set())
            concepts |= {concept_of(label) for label in labels_of(entry)}
        without = without | VAGUE
        return cls(
            {source: frozenset(concepts) - without for source, concepts in found.items()},
            {
                source: frozenset(w for c in concepts for w in with_general(c)) - without
                for source, concepts in found.items()
            },
            {source: EXHAUSTIVE.get(source, frozenset()) - without for source in found},
        )

    def concepts(self) -> list[str]:
        """All concepts of all sources, sorted."""
        return sorted(frozenset().union(*self.named.values(), *self.exhaustive.values()))

    def present(
        self, source: str, regions: Iterable[tuple[str, tuple[int, ...]]]
    ) -> dict[str, tuple[int, ...]]:
        """Concepts of a picture of a source, each with its region ids.

        Args:
            source: Of the picture.
            regions: Labels with their ids.
        """
        ids: dict[str, set[int]] = {}
        for label, own in regions:
            for concept in with_general(concept_of(label)):
                ids.setdefault(concept, set()).update(own)
        known = self.named[source]
        return {concept: tuple(sorted(i)) for concept, i in ids.items() if concept in known}

    def absent(self, source: str, labels: Iterable[str]) -> dict[str, float]:
        """Concepts known not to be in a picture, each with how much it counts.

        Args:
            source: Of the picture.
            labels: All that the picture is labelled with.
        """
        here = {c for label in labels for c in with_general(concept_of(label))}
        doubtful = {c for group in ALIKE if group & here for c in group}
        own = OWN_ABSENT.get(source, 1.0)
        weights = dict.fromkeys(self.named[source], own) | dict.fromkeys(
            self.exhaustive[source], 1.0
        )
        # A general word that is no label itself may hold for what no label names.
        general = GENERAL.keys() - self.exhaustive[source] - self.labelled[source]
        unsure = UNSURE.get(source, frozenset()) | general
        return {
            concept: weight * (_LEAST_DOUBT if concept in doubtful else 1.0)
            for concept, weight in sorted(weights.items())
            if weight and concept not in here and concept not in unsure
        }
