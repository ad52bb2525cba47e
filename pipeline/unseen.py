"""Parts of a picture that nothing can be said about."""

from __future__ import annotations

from dataclasses import dataclass

from .masks import Box


@dataclass(frozen=True)
class UnseenTile:
    """A part of a picture that was to be looked at and could not be.

    Attributes:
        box: Where, XYXY in pixels of the input image.
        reason: Why, on one line.
    """

    box: Box
    reason: str

    def to_dict(self) -> dict[str, object]:
        """Return JSON-serialisable values."""
        return {"box_xyxy": list(self.box), "reason": self.reason}
