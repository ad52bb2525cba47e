"""What the labels of the training data mean: synonyms, general words, and what is absent.

Labels that name the same thing, in whatever source, form one concept. In each picture a concept is
present, known to be absent, or unknown, since no source labels everything.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from promptseg.apps.evaluation.index_folder import Sample

# Concept -> other words for it. A label that is one of these words belongs to the concept.
SYNONYMS: Mapping[str, tuple[str, ...]] = {
    "person": (
        "people", "man", "woman", "child", "human", "boy", "girl", "kid", "lady", "men", "women",
        "pedestrian", "guy", "children",
    ),
    "dog": ("puppy", "dogs"),
    "cat": ("kitten", "cats", "kitty"),
    "horse": ("pony", "horses"),
    "sheep": ("lamb", "a flock of sheep"),
    "cow": ("cattle", "cows", "calf", "bull"),
    "bird": ("birds",),
    "car": ("automobile", "cars"),
    "sofa": ("couch",),
    "chair": ("armchair", "chairs"),
    "potted plant": ("plant", "house plant"),
    "tv monitor": ("tv", "television", "monitor", "screen"),
    "dining table": ("table",),
    "motorcycle": ("motorbike", "scooter"),
    "bicycle": ("bike",),
    "boat": ("ship", "boats"),
    "airplane": ("aeroplane", "plane", "aircraft"),
    "bus": ("coach",),
    "truck": ("lorry",),
    "cell phone": ("mobile phone", "phone"),
    "sports ball": ("ball",),
    "remote": ("remote control",),
    "refrigerator": ("fridge",),
    "mouse": ("computer mouse",),
    "orange": ("orange fruit",),
    "pavement": ("sidewalk",),
    "sea": ("ocean",),
    "grass": ("lawn", "meadow"),
    "tree": ("trees",),
    "floor": ("floor-wood",),
    "wall": ("wall-tile", "wall-brick", "wall-stone", "wall-wood"),
    "rug": ("carpet",),
    "pants": ("trousers",),
    "purse": ("handbag",),
    "sunglasses": ("shades",),
    "shoes": ("shoe", "footwear"),
    "sneakers": ("trainers",),
    "sweater": ("pullover",),
}  # fmt: skip


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


# General word -> the concepts it includes.
GENERAL: Mapping[str, frozenset[str]] = {
    "animal": _words("dog cat horse sheep cow bird elephant bear zebra giraffe"),
    "vehicle": _words("car bus truck train motorcycle bicycle boat airplane"),
    "furniture": _words("chair sofa bed bench cabinet shelf") | {"dining table"},
    "clothes": _words(
        "pants dress coat blouse shirt skirt jeans sweater t-shirt blazer suit jacket vest shorts "
        "top leggings sweatshirt cape romper jumper cardigan bodysuit hoodie"
    ),
    "food": _words("cake pizza broccoli sandwich carrot donut orange banana apple") | {"hot dog"},
}

# Labels that annotators used almost interchangeably: where one is present, the others count less
# as absent.
ALIKE: tuple[frozenset[str], ...] = tuple(
    _words(group)
    for group in (
        "bag purse wallet backpack",
        "shirt blouse t-shirt top sweater jumper cardigan sweatshirt hoodie bodysuit bra",
        "pants jeans leggings tights stockings shorts",
        "coat jacket blazer suit cape vest cardigan",
        "shoes boots heels sneakers sandals flats pumps loafers wedges",
        "sunglasses glasses",
        "dress skirt romper",
        "accessories bracelet necklace ring watch earrings belt scarf",
        "floor rug pavement road dirt sand gravel",
        "wall building house ceiling door",
        "sea water river",
        "tree grass flower",
    )
)

# Left out of training, to see how the head does on words that it was not taught.
HELD_OUT = frozenset(
    ["airplane", "bird", "elephant", "teddy bear", "broccoli", "orange", "hat", "remote"]
)

VOC = frozenset(
    ["airplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow",
     "dining table", "dog", "horse", "motorcycle", "person", "potted plant", "sheep", "sofa",
     "train", "tv monitor"]
)  # fmt: skip
ANIMALS = GENERAL["animal"]
# Source -> concepts that it labels wherever they appear.
EXHAUSTIVE: Mapping[str, frozenset[str]] = {
    "voc": VOC | ANIMALS | frozenset(["truck", "animal", "vehicle"]),
    "ccp": ANIMALS | frozenset(["animal", "clothes"]),
    "coco": VOC | frozenset(GENERAL) - {"clothes"},
}

_CONCEPTS = {word: concept for concept, words in SYNONYMS.items() for word in words}


def concept_of(label: str) -> str:
    """The concept that a label of the data belongs to."""
    return _CONCEPTS.get(label, label)


def phrases_of(concept: str) -> tuple[str, ...]:
    """All words of a concept, the usual one first, without names that only data sets use."""
    return (concept, *(word for word in SYNONYMS.get(concept, ()) if "-" not in word))


@dataclass(frozen=True)
class Vocabulary:
    """The concepts of each source.

    Attributes:
        by_source: Source -> all concepts that it labels wherever they appear.
    """

    by_source: Mapping[str, frozenset[str]]

    @classmethod
    def of(cls, samples: list[Sample], without: frozenset[str] = HELD_OUT) -> Vocabulary:
        """Collect the samples' concepts and those that their sources are known to label."""
        found: dict[str, set[str]] = {}
        for sample in samples:
            concepts = found.setdefault(sample.source, set())
            concepts |= {concept_of(region.label) for region in sample.regions}
        return cls(
            {
                source: (frozenset(concepts) | EXHAUSTIVE.get(source, frozenset())) - without
                for source, concepts in found.items()
            }
        )

    def concepts(self) -> list[str]:
        """All concepts of all sources, sorted."""
        return sorted(frozenset().union(*self.by_source.values()))

    def present(self, sample: Sample) -> dict[str, tuple[int, ...]]:
        """Concepts in a picture, each with its region ids."""
        ids: dict[str, set[int]] = {}
        for region in sample.regions:
            concept = concept_of(region.label)
            ids.setdefault(concept, set()).update(region.ids)
            for general, included in GENERAL.items():
                if concept in included:
                    ids.setdefault(general, set()).update(region.ids)
        known = self.by_source[sample.source]
        return {concept: tuple(sorted(i)) for concept, i in ids.items() if concept in known}

    def absent(self, sample: Sample) -> dict[str, float]:
        """Concepts known not to be in a picture, each with its weight in the loss."""
        here = {concept_of(region.label) for region in sample.regions}
        here |= {general for general, included in GENERAL.items() if here & included}
        doubtful = {c for group in ALIKE if group & here for c in group}
        return {
            concept: 0.4 if concept in doubtful else 1.0
            for concept in sorted(self.by_source[sample.source] - here)
        }
