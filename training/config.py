"""All settings of the pocket training in one place."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True)
class SceneConfig:
    """How training scenes are drawn.

    Attributes:
        side: Long side of the model input in pixels.
        small_side: Longest side of scenes that show a part, which take less time.
        full: Chance that a scene of one picture may have the whole side.
        usual: Chance that a single picture has about its usual scale.
        scales: Smallest and largest other scale, relative to the usual one.
        colour: Chance that a picture's colours are changed.
        mosaic: Chance of a scene of several pictures.
        paste: Chance that objects are pasted into a scene.
        pastes: Most kinds of objects pasted.
        paste_group: Chance that an object is pasted two or three times, touching.
        paste_sides: Shortest and longest of the pasted objects' longest sides, in pixels.
        paste_min_area: Smallest share of its picture of an object that is pasted.
        paste_balance: Words are drawn by their number of pictures to minus this power.
        paste_sources: Whose objects are pasted.
        rare: Share of the pictures below which a word's are drawn more often.
        balance: Power of how much more often they are drawn; 0 draws all pictures alike.
        kept_pictures: Loaded pictures that a worker remembers.
        sources: How often a source is drawn; the data's own share for those not named.
    """

    side: int = 512
    small_side: int = 384
    full: float = 0.45
    usual: float = 0.5
    scales: tuple[float, float] = (0.5, 2.0)
    colour: float = 0.7
    mosaic: float = 0.4
    paste: float = 0.55
    pastes: int = 4
    paste_group: float = 0.35
    paste_sides: tuple[float, float] = (40.0, 280.0)
    paste_min_area: float = 0.006
    paste_balance: float = 0.6
    paste_sources: tuple[str, ...] = ("voc", "coco", "coco-things", "pantry")
    rare: float = 0.02
    balance: float = 0.4
    kept_pictures: int = 800
    sources: tuple[tuple[str, float], ...] = (
        ("voc", 0.42),
        ("coco", 0.15),
        ("coco-things", 0.19),
        ("pantry", 0.07),
        ("ccp", 0.19),
        ("davis", 0.09),
        ("caltech101", 0.06),
        ("grocery", 0.05),
        ("fod-a", 0.03),
        ("clothing", 0.03),
        ("amenity", 0.03),
    )


@dataclass(frozen=True)
class TrainConfig:
    """How the pocket models are trained.

    The learning rate rises, then stays for as long as the training goes on; a cool-down branches
    off a checkpoint (a warm-up-stable-decay schedule, Hu et al. 2024, "MiniCPM").

    Attributes:
        seed: Of new weights and of every random choice.
        scenes: How scenes are drawn.
        calm: How they are drawn in a cool-down: more like the pictures that people have (as Ge et
            al. 2021, "YOLOX", who end their training without mosaics).
        images: Scenes a step.
        prompts: Prompts a scene.
        decode: Chance that a scene's prompts are decoded; text learns from all.
        warmup: First steps, of linear rise.
        learning_rate: Of the neck, the prompt encoder, the mask decoder and the text head.
        backbone_rate: Of the backbone's deep stages.
        weight_decay: Of AdamW.
        ema: Decay of the running mean of the weights, which is what is kept.
        cooldown_ema: The same during a cool-down.
        corrections: Chance of a round of corrective clicks, and of another after it.
        repeats: Chance that a box's next round has no click, only the box and the previous mask.
        spread: Share of the mean loss in the minimum over ambiguous masks.
        edge_weight: How much more a cell at an object's border counts.
        click_weight: Weight of the loss of clicks that are not obeyed.
        text_weight: Weight of the text head's loss.
        weak_weight: Weight of words without masks.
        heat_chance: Chance that a picture's prompts are the text head's own heat.
        one_chance: Chance that they ask for one of several objects of a word.
        text_noise: Standard deviation of the noise on phrase embeddings, per entry.
        unnamed_sources: Their labels are no words; they train masks only.
        min_area: Smallest object, as a share of the scene.
        min_visible: Share of an object that must be seen for it to be asked for.
        save_every: Steps between checkpoints.
        eval_every: Steps between looks at the dev split.
        eval_images: Most pictures of a source looked at.
    """

    seed: int = 0
    scenes: SceneConfig = field(default_factory=SceneConfig)
    calm: SceneConfig = field(
        default_factory=lambda: SceneConfig(
            full=0.7,
            usual=0.75,
            scales=(0.7, 1.6),
            colour=0.5,
            mosaic=0.12,
            paste=0.3,
            pastes=2,
            balance=0.3,
        )
    )
    images: int = 6
    prompts: int = 4
    decode: float = 0.9
    warmup: int = 40
    learning_rate: float = 3e-4
    backbone_rate: float = 1e-4
    weight_decay: float = 0.02
    ema: float = 0.995
    cooldown_ema: float = 0.99
    corrections: float = 0.5
    repeats: float = 0.6
    spread: float = 0.05
    edge_weight: float = 2.0
    click_weight: float = 0.2
    text_weight: float = 1.0
    weak_weight: float = 0.3
    heat_chance: float = 0.15
    one_chance: float = 0.2
    text_noise: float = 0.01
    unnamed_sources: tuple[str, ...] = ("davis",)
    min_area: float = 0.003
    min_visible: float = 0.5
    save_every: int = 50
    eval_every: int = 1000
    eval_images: int = 16
