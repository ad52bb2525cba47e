"""The presets and devices that a user may choose from, and what a preset still needs."""

from __future__ import annotations

import html

from ...models.hub.find import find_places
from ...models.hub.sources import SOURCES
from ...pipeline.presets.catalog import PRESETS
from ..cli.report import describe_size


def preset_choices() -> list[tuple[str, str]]:
    """Return (what is shown, name) of each preset; what lacks weights says so."""
    return [(f"{name}: not ready" if lacking(name) else name, name) for name in PRESETS]


def device_choices() -> list[str]:
    """Return the devices that this machine has."""
    import torch

    devices = ["cpu"]
    count = torch.cuda.device_count()
    devices += ["cuda"] if count == 1 else [f"cuda:{i}" for i in range(count)]
    if torch.backends.mps.is_available():
        devices.append("mps")
    return devices


def lacking(preset: str) -> list[str]:
    """Return the names of the weights that a preset needs and that are not all here."""
    missing = []
    for name in PRESETS[preset].weights.values() if preset in PRESETS else ():
        places = find_places(SOURCES[name])
        if not places or places[0].missing:
            missing.append(name)
    return missing


def describe_preset(preset: str) -> str:
    """Return what a preset is and what it needs before it can be used, as HTML."""
    found = PRESETS.get(preset)
    what = html.escape(found.description) if found is not None else "There is no such preset."
    missing = lacking(preset)
    if not missing:
        return f'<p class="quiet">{what}</p>'
    size = describe_size(sum(SOURCES[name].bytes for name in missing))
    return (
        f'<p class="quiet">{what}</p><p class="needs">Not ready: {", ".join(missing)} missing '
        f"({size}). Run <code>promptseg models fetch {html.escape(preset)}</code> where this app "
        "runs, then choose it again.</p>"
    )
