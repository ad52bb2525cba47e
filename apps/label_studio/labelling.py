"""Reads a project's labelling configuration: which labels there are, and where regions go.

Source: https://labelstud.io/tags; `predicted_values` says what a model calls a label.
"""

from __future__ import annotations

import xml.etree.ElementTree as ElementTree
from dataclasses import dataclass

from ...models.errors import InputError
from ...pipeline.query import split_phrases
from ..service.limits import check_phrases

# Controls that masks can be given to, the most exact first, by the type of their regions.
CONTROLS = {
    "BrushLabels": "brushlabels",
    "PolygonLabels": "polygonlabels",
    "RectangleLabels": "rectanglelabels",
}
_LONGEST = 200_000


@dataclass(frozen=True)
class Labelling:
    """Where masks go.

    Attributes:
        from_name: Name of the control.
        to_name: Name of the image.
        kind: Type of the regions, one of the values of CONTROLS.
        field: Field of a task's data that holds the image.
        labels: The label of each phrase to look for.
    """

    from_name: str
    to_name: str
    kind: str
    field: str
    labels: dict[str, str]


def read_labelling(config: str) -> Labelling:
    """Read a labelling configuration.

    Args:
        config: The XML that a project has as its label config.

    Raises:
        InputError: It is not XML, or has no image or no control for masks or boxes on it.
    """
    if len(config) > _LONGEST or "<!" in config.replace("<!--", ""):
        raise InputError("the labelling configuration is too long, or has a document type")
    try:
        root = ElementTree.fromstring(config)
    except (ElementTree.ParseError, ValueError) as error:
        raise InputError(f"the labelling configuration is not valid XML ({error})") from error
    images = {
        item.get("name"): (item.get("value") or "").removeprefix("$") for item in root.iter("Image")
    }
    for tag, kind in CONTROLS.items():
        for control in root.iter(tag):
            name, image = control.get("name"), control.get("toName")
            if name and image and images.get(image):
                labels = _phrases(control)
                check_phrases("labels", list(labels))
                return Labelling(name, image, kind, images[image], labels)
    raise InputError(
        f"the labelling configuration has no {', '.join(CONTROLS)} on an Image; add one, such as "
        '<BrushLabels name="tag" toName="image">'
    )


def _phrases(control: ElementTree.Element) -> dict[str, str]:
    """Return the label of each phrase; what two labels are called goes to the first."""
    found: dict[str, str] = {}
    for item in control.iter("Label"):
        label = item.get("value") or ""
        for phrase in split_phrases(item.get("predicted_values") or label):
            found.setdefault(phrase, label)
    return found
