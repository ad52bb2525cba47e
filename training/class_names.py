"""Embed the names of the ImageNet classes for the pocket text grounding.

    python training/class_names.py models/weights/imagenet_names.safetensors

A class goes by its WordNet lemmas (from timm's ImageNet tables) and, where people use a more
general word, by that as well: no one who looks for a dog types "Rhodesian ridgeback".
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import torch
from safetensors.torch import save_file
from timm.data import ImageNetInfo

from promptseg.models.pocket.minilm import SHA256, load_minilm

# First and last class index -> the general words that hold for all classes between.
GENERAL: tuple[tuple[int, int, str], ...] = (
    (0, 1, "fish"), (2, 4, "shark, fish"), (5, 6, "fish"), (7, 8, "chicken, bird"),
    (9, 24, "bird"), (25, 29, "salamander"), (30, 32, "frog"), (33, 37, "turtle"),
    (38, 48, "lizard"), (49, 50, "crocodile"), (51, 51, "dinosaur"), (52, 68, "snake"),
    (72, 77, "spider"), (80, 86, "bird"), (87, 90, "parrot, bird"), (91, 96, "bird"),
    (97, 98, "duck, bird"), (99, 99, "goose, bird"), (100, 100, "swan, bird"),
    (101, 101, "elephant"), (104, 104, "kangaroo"), (118, 121, "crab"), (122, 123, "lobster"),
    (125, 125, "crab"), (127, 146, "bird"), (147, 148, "whale"), (150, 150, "seal"),
    (151, 268, "dog"), (269, 272, "wolf"), (273, 275, "wild dog"), (277, 280, "fox"),
    (281, 285, "cat"), (286, 293, "big cat"), (294, 297, "bear"), (300, 320, "insect"),
    (300, 307, "beetle"), (321, 326, "butterfly, insect"), (330, 332, "rabbit"),
    (335, 335, "squirrel"), (339, 339, "horse"), (341, 343, "pig"), (345, 346, "cow, cattle"),
    (348, 349, "sheep"), (350, 350, "goat"), (351, 353, "antelope, deer"), (354, 354, "camel"),
    (365, 369, "ape, monkey"), (370, 382, "monkey"), (383, 384, "lemur"), (385, 386, "elephant"),
    (387, 388, "panda"), (389, 397, "fish"),
    (404, 404, "airplane, aeroplane, plane"), (895, 895, "airplane, aeroplane, plane"),
    (436, 436, "car"), (468, 468, "car, taxi"), (511, 511, "car"), (609, 609, "car"),
    (627, 627, "car"), (656, 656, "car"), (661, 661, "car"), (751, 751, "car"),
    (817, 817, "car"), (734, 734, "van"), (407, 407, "van"),
    (444, 444, "bicycle, bike"), (671, 671, "bicycle, bike"),
    (665, 665, "motorcycle, motorbike"), (670, 670, "motorcycle, motorbike, scooter"),
    (654, 654, "bus"), (779, 779, "bus"), (874, 874, "bus"),
    (555, 555, "truck"), (569, 569, "truck"), (675, 675, "truck"), (717, 717, "truck"),
    (864, 864, "truck"), (867, 867, "truck"),
    (466, 466, "train"), (547, 547, "train, locomotive"), (565, 565, "train"),
    (705, 705, "train"), (820, 820, "train, locomotive"), (829, 829, "tram, train"),
    (403, 403, "ship"), (472, 472, "boat"), (484, 484, "boat"), (510, 510, "ship, boat"),
    (554, 554, "boat"), (576, 576, "boat"), (625, 625, "boat"), (628, 628, "ship, boat"),
    (724, 724, "ship, boat"), (780, 780, "sailboat, boat"), (814, 814, "boat"),
    (871, 871, "boat"), (914, 914, "sailboat, boat"),
    (423, 423, "chair"), (559, 559, "chair"), (765, 765, "chair"), (857, 857, "chair"),
    (831, 831, "sofa, couch"), (532, 532, "dining table, table"), (526, 526, "desk, table"),
    (508, 508, "keyboard"), (527, 527, "computer"), (620, 620, "laptop"), (681, 681, "laptop"),
    (664, 664, "monitor, tv monitor"), (782, 782, "screen, tv monitor"),
    (851, 851, "tv, television"), (487, 487, "cell phone, mobile phone, phone"),
    (504, 504, "cup, mug"), (968, 968, "cup"), (572, 572, "wine glass"),
    (440, 440, "bottle"), (720, 720, "bottle"), (737, 737, "bottle"), (898, 898, "bottle"),
    (907, 907, "bottle"), (738, 738, "potted plant"), (414, 414, "backpack, bag"),
    (636, 636, "bag"), (728, 728, "bag"), (748, 748, "purse, handbag, bag"),
    (409, 409, "clock"), (530, 530, "clock"), (892, 892, "clock"), (531, 531, "watch"),
    (673, 673, "computer mouse"), (761, 761, "remote"), (827, 827, "oven, stove"),
    (861, 861, "toilet"), (896, 896, "sink"), (564, 564, "bed"), (520, 520, "bed"),
    (850, 850, "teddy bear"), (429, 430, "ball"), (574, 574, "ball"), (722, 722, "ball"),
    (768, 768, "ball"), (805, 805, "ball"), (852, 852, "ball"), (890, 890, "ball"),
    (752, 752, "tennis racket"), (981, 983, "person, man"), (919, 919, "sign"),
    (917, 917, "book"), (921, 921, "book"), (948, 948, "apple"), (933, 933, "burger, sandwich"),
    (930, 931, "bread"), (985, 986, "flower"), (970, 970, "mountain"), (980, 980, "mountain"),
    (978, 978, "beach"), (975, 975, "lake"), (608, 608, "jeans, pants"), (610, 610, "t-shirt"),
    (655, 655, "skirt"), (601, 601, "skirt"), (689, 689, "skirt"), (578, 578, "dress"),
    (399, 399, "dress"), (841, 841, "sweatshirt, sweater"), (474, 474, "sweater"),
    (568, 568, "coat"), (617, 617, "coat"), (869, 869, "coat"), (514, 514, "boots"),
    (502, 502, "shoes"), (630, 630, "shoes"), (770, 770, "shoes, sneakers"),
    (774, 774, "sandals"), (806, 806, "socks"), (836, 837, "sunglasses, glasses"),
    (457, 457, "tie"), (906, 906, "tie"), (824, 824, "scarf"), (515, 515, "hat"),
    (808, 808, "hat"), (518, 518, "helmet"), (560, 560, "helmet"), (445, 445, "swimsuit"),
    (639, 639, "swimsuit"),
)  # fmt: skip


def class_names() -> list[list[str]]:
    """All names of each of the 1,000 classes, without repetitions."""
    info = ImageNetInfo()
    names = [info.index_to_description(index).split(", ") for index in range(1000)]
    for first, last, words in GENERAL:
        for index in range(first, last + 1):
            names[index] += words.split(", ")
    return [list(dict.fromkeys(group)) for group in names]


def main() -> None:
    """Write the embeddings."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("out", type=Path)
    out = parser.parse_args().out
    groups = class_names()
    unique = sorted({name for group in groups for name in group})
    number = {name: i for i, name in enumerate(unique)}
    pairs = [(index, number[name]) for index, group in enumerate(groups) for name in group]
    tensors = {
        "embeddings": load_minilm().encode(unique).half(),
        "pairs": torch.tensor(pairs, dtype=torch.int16),
    }
    save_file(tensors, out, metadata={"names": json.dumps(unique), "minilm_sha256": SHA256})


if __name__ == "__main__":
    main()
