"""The published weights: repositories on the Hugging Face hub, files, sizes and licences.

Sizes and hashes are taken from public projects that pin these commits of the hub: 70c1a07f
sam-vit-base, 87aecf0d sam-vit-huge, a2bb814d and 12bdfa31 Grounding DINO tiny and base, cfd3195b
and 95e26936 OWLv2 base and large, 977e3dd0 CLIP, 4610ca14, 4685c99d and 4741e1ca DINOv2 small,
base and large, de431c40, e07df6aa and 665f8e2a SAM 2.1 tiny, small and large, 3c879f39 SAM 3.
MobileSAM's are those of its own repository. An unknown size is estimated at four bytes per
parameter; without a known hash, a download is checked against the one that the hub reports.
Licences are those of the model pages, CLIP's is OpenAI's.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from ..errors import ModelNotFoundError

_APACHE = "Apache-2.0"
_DETECTOR_FILES = ("model.safetensors", "config.json", "preprocessor_config.json")
_BERT_FILES = ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "vocab.txt")
_CLIP_FILES = ("tokenizer_config.json", "special_tokens_map.json", "vocab.json", "merges.txt")
_SAM2_FILES = ("model.safetensors", "config.json")
# Newer folders have its content in tokenizer_config.json and lack the file.
_SAID_ELSEWHERE = ("special_tokens_map.json",)


@dataclass(frozen=True)
class WeightSource:
    """One model's published weights.

    Attributes:
        name: Short unique name.
        repo: "owner/name" on the Hugging Face hub.
        files: Names of the files that loading needs, the one with the weights first.
        bytes: Size of all files together; that of the small ones is an estimate.
        license: SPDX identifier, or the licence's name if it has none.
        sha256: File name -> hexadecimal hash, where it is known.
        gated: Whether access must be requested on the model's page.
        package: The distribution whose code the model runs through; "" if promptseg has its own.
    """

    name: str
    repo: str
    files: tuple[str, ...]
    bytes: int
    license: str
    sha256: Mapping[str, str] = field(default_factory=dict, hash=False)
    gated: bool = False
    package: str = ""

    @property
    def needed(self) -> tuple[str, ...]:
        """Names of the files that loading cannot do without."""
        return tuple(name for name in self.files if name not in _SAID_ELSEWHERE)

    @property
    def weights(self) -> str:
        """Name of the file with the weights."""
        return self.files[0]


def _sam(name: str, size: int, sha256: str = "") -> WeightSource:
    hashes = {"model.safetensors": sha256} if sha256 else {}
    return WeightSource(name, f"facebook/{name}", ("model.safetensors",), size, _APACHE, hashes)


def _detector(
    name: str, repo: str, tokenizer: tuple[str, ...], size: int, sha256: str
) -> WeightSource:
    files = _DETECTOR_FILES + tokenizer
    hashes = {"model.safetensors": sha256}
    return WeightSource(name, repo, files, size, _APACHE, hashes, package="transformers")


def _dino(size: str, count: int, sha256: str) -> WeightSource:
    return WeightSource(
        f"dinov2-{size}",
        f"timm/vit_{size}_patch14_dinov2.lvd142m",
        ("model.safetensors",),
        count,
        _APACHE,
        {"model.safetensors": sha256},
        package="timm",
    )


def _sam2(size: str, count: int, sha256: str = "") -> WeightSource:
    name = f"sam2.1-hiera-{size}"
    hashes = {"model.safetensors": sha256} if sha256 else {}
    repo = f"facebook/{name}"
    return WeightSource(name, repo, _SAM2_FILES, count, _APACHE, hashes, package="transformers")


_LIST = (
    WeightSource(
        "mobile-sam",
        "dhkim2810/MobileSAM",
        ("mobile_sam.pt",),
        40_728_226,
        _APACHE,
        {"mobile_sam.pt": "6dbb90523a35330fedd7f1d3dfc66f995213d81b29a5ca8108dbcdd4e37d6c2f"},
    ),
    _sam("sam-vit-base", 374_980_000),
    _sam("sam-vit-large", 1_249_420_000),
    _sam(
        "sam-vit-huge",
        2_564_430_000,
        "edfb0462392541fca9af44ff039bfb32dbd0c939997f3abb77a26e23af7afd7c",
    ),
    _detector(
        "grounding-dino-tiny",
        "IDEA-Research/grounding-dino-tiny",
        _BERT_FILES,
        690_300_000,
        "1a2412ef99bd74bcd3c2a246fa1e48581f8889a1300c9051974741314fc042f3",
    ),
    _detector(
        "grounding-dino-base",
        "IDEA-Research/grounding-dino-base",
        _BERT_FILES,
        934_340_000,
        "5548f844c928c4b6f411fa8cbcc2bfa8dbbba437cb1d513975519f93c2a9ed21",
    ),
    _detector(
        "owlv2-base",
        "google/owlv2-base-patch16-ensemble",
        _CLIP_FILES,
        621_310_000,
        "e1e130b9e404cf91a75ad45644c1da9d7fa5284085eecc864266a6923efb99e7",
    ),
    _detector(
        "owlv2-large",
        "google/owlv2-large-patch14-ensemble",
        _CLIP_FILES,
        1_751_910_000,
        "d1c2261503c55aaf400667a843a54a5167e3c696334674c4093d6d10f7f40075",
    ),
    WeightSource(
        "clip-vit-b-16",
        "timm/vit_base_patch16_clip_224.openai",
        ("open_clip_model.safetensors", "open_clip_config.json"),
        598_517_600,
        "MIT",
        {
            "open_clip_model.safetensors": (
                "4b8699299b1e8997753c64b052ba32031449d5d853f55a039148560ee02b820f"
            )
        },
        package="open_clip_torch",
    ),
    _dino("small", 88_240_510, "04d27f3400d059fc0cfd7d17dd1909a75bf3ea8fb3eeb48b97cb99e57ee20081"),
    _dino("base", 346_334_872, "55cbb5d887b336d430e649c277b85a1429e724871f9d02ac16203235886d8c7b"),
    _dino(
        "large", 1_217_502_758, "0424a5d1b515278cba3c6640ccbeaacc41de59d3a93df0dd5e494285eea2b355"
    ),
    _sam2("tiny", 155_914_000, "48c14467e5cf9e51870511feb72c89688e82dd74523142c0538b663e193ac2a7"),
    _sam2("small", 184_311_000, "0a4067b11ce1e23d5229203f11c718a823060d15a4b23fa2372a7d4b77cbbc60"),
    _sam2("base-plus", 323_500_000),
    _sam2("large", 897_903_000, "dc407dce21301fd94abb395c5099b4f2c455fdc8a8f261ac3d0ea6d4cd197230"),
    WeightSource(
        "sam3",
        "facebook/sam3",
        (
            "model.safetensors",
            "config.json",
            "processor_config.json",
            "tokenizer.json",
            *_CLIP_FILES,
        ),
        3_445_000_000,
        "SAM License",
        {"model.safetensors": "6d06f0a5f84e435071fe6603e61d0b4cc7b40e0d39d487cfd4d67d8cc11cc14a"},
        gated=True,
        package="transformers",
    ),
)

SOURCES: dict[str, WeightSource] = {source.name: source for source in _LIST}


def get_source(name: str) -> WeightSource:
    """Return a source by its name.

    Raises:
        ModelNotFoundError: There is no source of that name.
    """
    found = SOURCES.get(name)
    if found is None:
        raise ModelNotFoundError(f"no weights are called {name!r}; there are {', '.join(SOURCES)}")
    return found
