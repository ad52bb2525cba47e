"""Tables of words: what sources call things, what includes what, and what rules out what."""

from __future__ import annotations

from collections.abc import Mapping


def _words(text: str) -> frozenset[str]:
    return frozenset(text.replace("\n", " ").split(", "))


# Concept -> other words for it. A label that is one of the words belongs to the concept.
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
    "bear": ("bears",),
    "zebra": ("zebras",),
    "giraffe": ("giraffes",),
    "car": ("automobile", "cars"),
    "sofa": ("couch", "settee"),
    "chair": ("armchair", "chairs", "seat"),
    "potted plant": ("plant", "house plant"),
    "tv monitor": ("tv", "television", "monitor", "screen"),
    "dining table": ("table",),
    "motorcycle": ("motorbike", "scooter"),
    "bicycle": ("bike", "bicycles"),
    "boat": ("ship", "boats"),
    "airplane": ("aeroplane", "plane", "aircraft"),
    "bus": ("coach", "buses"),
    "truck": ("lorry", "trucks"),
    "train": ("trains", "locomotive"),
    "traffic light": ("traffic lights", "stoplight"),
    "cell phone": ("mobile phone", "phone", "cellphone", "smartphone"),
    "sports ball": ("ball",),
    "remote": ("remote control",),
    "refrigerator": ("fridge",),
    "oven": ("stove", "cooker"),
    "microwave": ("microwave oven",),
    "hair drier": ("hair dryer", "hairdryer"),
    "toaster": ("bread toaster",),
    "toilet": ("toilet bowl",),
    "sink": ("wash basin", "kitchen sink"),
    "cup": ("mug", "cups", "coffee cup"),
    "wine glass": ("wineglass", "wine glasses"),
    "bottle": ("bottles",),
    "bowl": ("bowls",),
    "vase": ("flower vase",),
    "book": ("books",),
    "laptop": ("notebook computer", "laptop computer"),
    "keyboard": ("computer keyboard",),
    "mouse": ("computer mouse",),
    "suitcase": ("luggage", "suitcases"),
    "umbrella": ("parasol", "umbrellas"),
    "fire hydrant": ("hydrant",),
    "tennis racket": ("racket", "tennis racquet"),
    "baseball glove": ("baseball mitt",),
    "skis": ("ski",),
    "frisbee": ("flying disc",),
    "donut": ("doughnut", "donuts"),
    "teddy bear": ("stuffed toy", "teddy"),
    "orange": ("orange fruit",),
    "banana": ("bananas",),
    "apple": ("apples",),
    "carrot": ("carrots",),
    "tomato": ("tomatoes",),
    "potato": ("potatoes",),
    "onion": ("onions",),
    "lemon": ("lemons",),
    "egg": ("eggs",),
    "strawberry": ("strawberries",),
    "yogurt": ("yoghurt",),
    "eggplant": ("aubergine",),
    "bell pepper": ("pepper", "sweet pepper"),
    "marshmallow": ("marsmallow", "marshmallows"),
    "lychee": ("litchi",),
    "bulgur": ("bulgar",),
    "beetroot": ("red beet",),
    "grapefruit": ("red grapefruit",),
    "mandarin": ("satsumas", "tangerine"),
    "zucchini": ("courgette",),
    "mushroom": ("brown cap mushroom", "mushrooms"),
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
    "sneakers": ("trainers", "sneaker"),
    "sweater": ("pullover",),
    "tie": ("necktie",),
    "t-shirt": ("t shirt", "tee"),
    "longsleeve": ("long sleeve shirt",),
    "outwear": ("outerwear",),
    "watch": ("wrist watch", "wristwatch"),
    "face": ("human face",),
    "ceiling fan": ("celling fan",),
    "air conditioner": ("ac",),
    "soda can": ("sodacan", "can"),
    "rhinoceros": ("rhino",),
    "leopard": ("leopards",),
    "water lily": ("water lilly",),
    "headphones": ("headphone",),
    "binoculars": ("binocular",),
    "clamp": ("adjustableclamp",),
    "wrench": ("adjustablewrench", "spanner"),
    "fuel cap": ("fuelcap",),
    "luggage tag": ("luggagetag",),
}  # fmt: skip

ANIMALS = _words(
    "dog, cat, horse, sheep, cow, bird, elephant, bear, zebra, giraffe, leopard, beaver, cougar, "
    "dolphin, emu, flamingo, gerenuk, hedgehog, ibis, kangaroo, llama, okapi, panda, pigeon, "
    "platypus, rhinoceros, rooster, wild cat, crocodile, dalmatian"
)
FRUIT = _words(
    "apple, banana, orange, lemon, lime, mango, melon, nectarine, papaya, passion fruit, peach, "
    "pear, pineapple, plum, pomegranate, grapefruit, mandarin, kiwi, strawberry, blueberry, "
    "raspberry, cherry, grape, lychee, avocado"
)
VEGETABLES = _words(
    "broccoli, carrot, cucumber, onion, tomato, garlic, bell pepper, potato, eggplant, zucchini, "
    "cabbage, leek, spinach, lettuce, asparagus, beetroot, corn, mushroom, spring onion"
)
FOOD = (
    FRUIT
    | VEGETABLES
    | _words(
        "cake, pizza, sandwich, donut, hot dog, bread, sugar, egg, flour, cheese, butter, pasta, "
        "cereal, yogurt, jam, biscuit, peanut butter, rice, meat product, cookie, noodles, "
        "chicken, chocolate, fish, honey, sausage, tortilla, cracker, pretzel, candy, parsley, "
        "red chilli, green chilli, ginger, almonds, walnut, raisin"
    )
)
VEHICLES = _words("car, bus, truck, train, motorcycle, bicycle, boat, airplane, helicopter")

# General word -> the concepts it includes.
GENERAL: Mapping[str, frozenset[str]] = {
    "animal": ANIMALS,
    "vehicle": VEHICLES,
    "furniture": _words("chair, sofa, bed, bench, cabinet, shelf, dining table, windsor chair"),
    "clothes": _words(
        "pants, dress, coat, blouse, shirt, skirt, jeans, sweater, t-shirt, blazer, suit, jacket, "
        "vest, shorts, top, leggings, sweatshirt, cape, romper, jumper, cardigan, bodysuit, "
        "hoodie, longsleeve, outwear"
    ),
    "food": FOOD,
    "fruit": FRUIT,
    "vegetable": VEGETABLES,
    "boat": _words("ketch, schooner, ferry"),
    "dog": _words("dalmatian"),
    "bird": _words("emu, flamingo, ibis, pigeon, rooster"),
    "chair": _words("windsor chair"),
    "sports ball": _words("soccer ball"),
    "guitar": _words("electric guitar, mandolin"),
    "tool": _words("wrench, pliers, hammer, screwdriver, clamp, cutter"),
    "flower": _words("sunflower, lotus, water lily"),
}

# Labels that annotators used for much the same thing: where one is, another counts little as
# absent.
ALIKE: tuple[frozenset[str], ...] = tuple(
    _words(group)
    for group in (
        "bag, purse, wallet, backpack, suitcase",
        "shirt, blouse, t-shirt, top, sweater, jumper, cardigan, sweatshirt, hoodie, bodysuit, "
        "bra, longsleeve",
        "pants, jeans, leggings, tights, stockings, shorts",
        "coat, jacket, blazer, suit, cape, vest, cardigan, outwear",
        "shoes, boots, heels, sneakers, sandals, flats, pumps, loafers, wedges",
        "sunglasses, glasses",
        "dress, skirt, romper",
        "accessories, bracelet, necklace, ring, watch, earrings, belt, scarf",
        "floor, rug, pavement, road, dirt, sand, gravel",
        "wall, building, house, ceiling, door",
        "sea, water, river",
        "tree, grass, flower, potted plant",
        "cup, bowl, wine glass, vase, bottle",
        "fork, knife, spoon",
        "oven, microwave, toaster",
        "laptop, keyboard, tv monitor, mouse",
        "red chilli, green chilli, bell pepper",
        "lemon, lime, mandarin, grapefruit",
        "onion, garlic, spring onion",
        "peach, nectarine, plum, apple",
        "milk, sour milk, sour cream, oat milk, soy milk, yogurt, oatghurt, soyghurt, juice",
        "cougar, wild cat, leopard, cat, cougar face",
        "crocodile, crocodile head",
        "flamingo, flamingo head, ibis, emu",
        "ketch, schooner, ferry, boat",
        "lotus, water lily, sunflower",
        "crab, lobster, crayfish, scorpion",
        "ant, tick, mayfly, dragonfly",
        "brontosaurus, stegosaurus",
        "electric guitar, mandolin",
        "euphonium, saxophone, gramophone",
        "bolt, nut, washer, screw, nail",
        "wrench, pliers, hammer, screwdriver, clamp, cutter",
        "sugar, salt, flour, black pepper, peppercorns, cocoa powder, chilli powder",
        "bread, biscuit, cookie, cracker, tortilla",
        "gerenuk, llama, okapi, giraffe, horse",
        "face, person",
    )
)

# Never labelled in training, to see how words fare that the head was not taught.
HELD_OUT = frozenset(
    ["airplane", "bird", "elephant", "teddy bear", "broccoli", "orange", "hat", "remote"]
)

VOC = _words(
    "airplane, bicycle, bird, boat, bottle, bus, car, cat, chair, cow, dining table, dog, horse, "
    "motorcycle, person, potted plant, sheep, sofa, train, tv monitor"
)
COCO_THINGS = VOC | _words(
    "truck, traffic light, fire hydrant, stop sign, parking meter, bench, elephant, bear, zebra, "
    "giraffe, backpack, umbrella, purse, tie, suitcase, frisbee, skis, snowboard, sports ball, "
    "kite, baseball bat, baseball glove, skateboard, surfboard, tennis racket, wine glass, cup, "
    "fork, knife, spoon, bowl, banana, apple, sandwich, orange, broccoli, carrot, hot dog, pizza, "
    "donut, cake, bed, toilet, laptop, mouse, remote, keyboard, cell phone, microwave, oven, "
    "toaster, sink, refrigerator, book, clock, vase, scissors, teddy bear, hair drier, toothbrush"
)
_LIVE = _words(
    "dog, cat, horse, sheep, cow, bird, elephant, bear, zebra, giraffe, animal, car, bus, truck, "
    "train, motorcycle, bicycle, boat, airplane, vehicle"
)
# What a picture of the source would be labelled with if it were there.
EXHAUSTIVE: Mapping[str, frozenset[str]] = {
    "voc": VOC | _words("elephant, bear, zebra, giraffe, truck, animal, vehicle"),
    "ccp": _LIVE - {"bicycle", "car", "vehicle"} | _words("clothes, pizza, bed, toilet, oven"),
    "coco": COCO_THINGS | _words("animal, vehicle, furniture, food, fruit"),
    "coco-things": COCO_THINGS | _words("animal, vehicle"),
    "pantry": _LIVE | _words("sofa, bed, tv monitor, laptop, toilet"),
    "caltech101": _words(
        "cat, sheep, cow, zebra, bus, truck, train, bed, toilet, sofa, pizza, donut, cake, "
        "sandwich, oven, microwave, refrigerator, skateboard, surfboard, toothbrush, fork, spoon"
    ),
    "grocery": _LIVE | _words("sofa, bed, toilet, laptop, keyboard, pizza, umbrella, clock"),
    "fod-a": _LIVE - {"airplane", "vehicle"}
    | _words("person, sofa, bed, dining table, pizza, sandwich, cake, potted plant, bowl"),
    "clothing": _LIVE | _words("pizza, cake, sandwich, toilet, sink, oven, traffic light"),
    "amenity": _LIVE | _words("pizza, traffic light, stop sign, skis, surfboard"),
}
# What a source labels where it names it, but leaves out elsewhere.
UNSURE: Mapping[str, frozenset[str]] = {
    # A table is stuff to COCO where nothing is eaten at it.
    "coco-things": _words("dining table"),
}
# Words of pictures without masks that say nothing of what the thing looks like.
VAGUE = _words(
    "boltnutset, boltwasher, clamppart, luggagepart, metalpart, plasticpart, paintchip, label, "
    "metalsheet, wood, garfield, snoopy, yin yang, brain, bass, nautilus"
)
# Sources not all of whose pictures are labelled with all of the source's labels: how much one that
# is not named counts as absent.
OWN_ABSENT: Mapping[str, float] = {
    "pantry": 0.5,
    "caltech101": 0.5,
    "fod-a": 0.5,
    "clothing": 0.3,
    "grocery": 0.0,
    "amenity": 0.0,
}
