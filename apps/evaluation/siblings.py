"""Which labels are siblings (cow and horse), and which may name the same thing.

Asking for an absent object is only fair if nobody could say that it is in the picture after all, so
a label that may name something present is never asked as absent.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

import numpy as np

# Labels that name the same thing.
_SYNONYMS = (
    ("person", "people", "man", "men", "woman", "women", "boy", "girl", "child", "children", "kid",
     "baby", "human", "pedestrian", "rider", "player"),
    ("sofa", "couch", "settee"),
    ("tv", "tv monitor", "tv/monitor", "tvmonitor", "television", "monitor", "screen"),
    ("motorbike", "motorcycle"),
    ("bicycle", "bike"),
    ("aeroplane", "airplane", "plane"),
    ("dining table", "diningtable", "table"),
    ("potted plant", "pottedplant", "plant", "houseplant"),
    ("cell phone", "mobile phone", "phone"),
    ("refrigerator", "fridge"),
    ("hair drier", "hair dryer"),
    ("donut", "doughnut"),
    ("cow", "cattle"),
    ("sheep", "lamb"),
    ("dog", "puppy"),
    ("cat", "kitten"),
    ("remote", "remote control"),
    ("mouse", "computer mouse"),
    ("keyboard", "computer keyboard"),
    ("stop sign", "road sign"),
    ("teddy bear", "stuffed toy"),
    ("handbag", "bag", "purse"),
    ("glasses", "eyeglasses", "spectacles"),
    ("pants", "trousers"),
    ("sweater", "pullover", "jumper"),
    ("sweatshirt", "hoodie"),
    ("stockings", "tights", "pantyhose"),
    ("t shirt", "tee"),
    ("tie", "necktie"),
    ("scarf", "shawl"),
    ("hat", "cap"),
    ("jewelry", "jewellery"),
)  # fmt: skip

# General words, and what else they may name.
_COVERS: Mapping[str, tuple[str, ...]] = {
    "bag": ("backpack", "suitcase", "wallet", "clutch"),
    "shoes": ("boots", "sandals", "heels", "pumps", "flats", "sneakers", "loafers", "wedges",
              "clogs", "footwear"),
    "heels": ("pumps", "wedges", "sandals", "boots"),
    "flats": ("loafers", "sandals"),
    "pants": ("jeans", "leggings", "shorts"),
    "leggings": ("stockings",),
    "shirt": ("t shirt", "blouse", "top"),
    "top": ("blouse", "t shirt", "sweater", "sweatshirt", "cardigan", "vest", "bodysuit", "bra",
            "intimate"),
    "sweater": ("cardigan", "sweatshirt", "romper"),
    "jacket": ("blazer", "coat"),
    "coat": ("cape",),
    "suit": ("blazer", "jacket", "pants", "vest", "romper"),
    "dress": ("romper",),
    "glasses": ("sunglasses",),
    "accessories": ("belt", "bracelet", "earrings", "glasses", "gloves", "hat", "necklace", "ring",
                    "scarf", "sunglasses", "tie", "wallet", "bag", "watch", "jewelry"),
    "jewelry": ("necklace", "bracelet", "ring", "earrings", "watch"),
    "car": ("van", "jeep", "taxi"),
    "truck": ("van", "lorry", "pickup"),
    "bottle": ("wine bottle",),
    "animal": ("bird", "cat", "dog", "horse", "sheep", "cow", "elephant", "bear", "zebra",
               "giraffe"),
    "vehicle": ("car", "bus", "truck", "train", "boat", "aeroplane", "motorcycle", "bicycle"),
}  # fmt: skip

# Groups of siblings; a label's siblings come from the first table that has any to ask for.
_COCO_GROUPS = (
    ("bicycle", "car", "motorcycle", "airplane", "bus", "train", "truck", "boat"),
    ("traffic light", "fire hydrant", "stop sign", "parking meter", "bench"),
    ("bird", "cat", "dog", "horse", "sheep", "cow", "elephant", "bear", "zebra", "giraffe"),
    ("backpack", "umbrella", "handbag", "tie", "suitcase"),
    ("frisbee", "skis", "snowboard", "sports ball", "kite", "baseball bat", "baseball glove",
     "skateboard", "surfboard", "tennis racket"),
    ("bottle", "wine glass", "cup", "fork", "knife", "spoon", "bowl"),
    ("banana", "apple", "sandwich", "orange", "broccoli", "carrot", "hot dog", "pizza", "donut",
     "cake"),
    ("chair", "couch", "potted plant", "bed", "dining table", "toilet"),
    ("tv", "laptop", "mouse", "remote", "keyboard", "cell phone"),
    ("microwave", "oven", "toaster", "sink", "refrigerator"),
    ("book", "clock", "vase", "scissors", "teddy bear", "hair drier", "toothbrush"),
)  # fmt: skip
_VOC_GROUPS = (("bottle", "chair", "dining table", "potted plant", "sofa", "tv monitor"),)
_CLOTHES_GROUPS = (
    ("shirt", "blouse", "t shirt", "top", "sweater", "sweatshirt", "cardigan", "vest", "blazer",
     "jacket", "coat", "cape", "suit", "bodysuit", "bra", "intimate", "jumper", "hoodie"),
    ("pants", "jeans", "shorts", "skirt", "leggings"),
    ("dress", "romper", "suit", "bodysuit", "skirt"),
    ("stockings", "tights", "socks", "leggings"),
    ("shoes", "boots", "sandals", "heels", "pumps", "flats", "sneakers", "loafers", "wedges",
     "clogs", "socks"),
    ("bag", "purse", "handbag", "wallet", "backpack"),
    ("hat", "glasses", "sunglasses", "scarf"),
    ("necklace", "bracelet", "ring", "earrings", "watch"),
    ("belt", "tie", "scarf", "gloves"),
    ("skin", "hair"),
)  # fmt: skip
_TABLES = (_COCO_GROUPS, _VOC_GROUPS, _CLOTHES_GROUPS)


def normalise(label: str) -> str:
    """Return a label as the tables spell it: lower case, spaces for hyphens and underscores."""
    return " ".join(label.casefold().replace("_", " ").replace("-", " ").split())


def is_person(label: str) -> bool:
    """Whether a label is a word for people in general."""
    return normalise(label) in _SYNONYMS[0]


def may_name_the_same(first: str, second: str) -> bool:
    """Whether two labels may fit one object: synonyms, or a general and a specific word."""
    one, other = _names(first), _names(second)
    if one & other:
        return True
    return bool(_covered(one) & other or _covered(other) & one)


def siblings(
    label: str, candidates: Sequence[str], supercategories: Mapping[str, str]
) -> list[str]:
    """Return the candidates that are siblings of a label.

    Args:
        label: A label.
        candidates: Labels that can be asked for; those that may name the same thing are left out.
        supercategories: The data's own grouping, label -> group; if it has the label, it alone
            decides.
    """
    others = [name for name in candidates if not may_name_the_same(label, name)]
    if label in supercategories:
        group = supercategories[label]
        return [name for name in others if supercategories.get(name) == group]
    for table in _TABLES:
        names = {name for group in table if _in_group(label, group) for name in group}
        found = [name for name in others if _in_group(name, names)]
        if found:
            return found
    return []


def draw_absent(
    present: Sequence[str],
    here: Collection[str],
    vocabulary: Sequence[str],
    supercategories: Mapping[str, str],
    rng: np.random.Generator,
) -> tuple[list[str], list[str]]:
    """Draw phrases that are not in a picture.

    Args:
        present: The present labels that are asked for.
        here: All labels known to be in the picture.
        vocabulary: Labels that can be asked for.
        supercategories: The data's own grouping; see :func:`siblings`.
        rng: Source of the draws.

    Returns:
        As many labels as there are present ones, drawn from all absent ones; and a sibling for each
        present label that has any left, no two the same. A label can be in both lists.
    """
    absent = [
        label for label in vocabulary if not any(may_name_the_same(label, name) for name in here)
    ]
    count = min(len(absent), len(present))
    at_random = [str(label) for label in rng.choice(absent, count, replace=False)] if count else []
    drawn: list[str] = []
    for label in present:
        left = [name for name in absent if name not in drawn]
        found = siblings(label, left, supercategories)
        if found:
            drawn.append(str(rng.choice(found)))
    return at_random, drawn


def _names(label: str) -> frozenset[str]:
    """The label and its synonyms."""
    plain = normalise(label)
    return frozenset({plain}.union(*(group for group in _SYNONYMS if plain in group)))


def _covered(names: Collection[str]) -> frozenset[str]:
    """What the names may cover as general words, with synonyms."""
    special = {label for name in names for label in _COVERS.get(name, ())}
    return frozenset().union(*(_names(label) for label in special))


def _in_group(label: str, group: Collection[str]) -> bool:
    return not _names(label).isdisjoint(group)
