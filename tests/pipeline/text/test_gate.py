"""The gate: who is asked, who decides, and what the reasons say."""

from __future__ import annotations

import math
from collections.abc import Sequence

import pytest

from promptseg.models.errors import InputError
from promptseg.pipeline.prompters.evidence import evidence_of
from promptseg.pipeline.prompters.text.gate import PresenceGate, Witness


class Judge:
    """Knows the presence of some phrases and records what it is asked."""

    def __init__(self, **known: float) -> None:
        self.known = known
        self.asked: list[list[str]] = []

    def __call__(self, embedding: object, phrases: Sequence[str]) -> list[float]:
        self.asked.append(list(phrases))
        return [self.known[phrase] for phrase in phrases]


def reasons(gate: PresenceGate, phrases: list[str], presences: list[float]) -> list[str]:
    return [verdict.reason for verdict in gate(None, phrases, presences)]


def log_odds(share: float) -> float:
    return math.log(share / (1 - share))


def test_evidence_is_in_log_odds_from_the_threshold() -> None:
    found = PresenceGate(0.2)(None, ["cat", "dog", "owl"], [0.2, 0.9, 0.05])
    expected = [0.0, log_odds(0.9) - log_odds(0.2), log_odds(0.05) - log_odds(0.2)]
    assert [verdict.evidence for verdict in found] == pytest.approx(expected)
    assert math.isfinite(evidence_of(0.0, 1.0))
    assert evidence_of(0.0, 0.0) == 0.0


def test_evidence_is_the_least_of_all_witnesses() -> None:
    gate = PresenceGate(0.2, (Witness("CLIP", Judge(cat=0.6, dog=0.99), 0.5),))
    cat, dog = gate(None, ["cat", "dog"], [0.9, 0.3])
    assert cat.evidence == pytest.approx(log_odds(0.6))
    assert dog.evidence == pytest.approx(log_odds(0.3) - log_odds(0.2))


def test_an_open_gate_lets_all_pass() -> None:
    assert reasons(PresenceGate(), ["cat", "dog"], [0.0, 1.0]) == ["", ""]


def test_the_least_presence_itself_passes() -> None:
    assert reasons(PresenceGate(0.5), ["cat", "dog"], [0.5, 0.49]) == [
        "", "presence 0.49 below 0.50",
    ]  # fmt: skip


def test_all_witnesses_must_agree_and_are_asked_of_what_is_left() -> None:
    picture = Judge(dog=0.9, owl=0.2, yak=0.8)
    second = Judge(dog=0.7, yak=0.1)
    gate = PresenceGate(0.3, (Witness("CLIP", picture, 0.5), Witness("second", second, 0.4)))
    phrases = ["cat", "dog", "owl", "yak"]
    assert reasons(gate, phrases, [0.1, 0.4, 0.9, 0.8]) == [
        "presence 0.10 below 0.30",
        "",
        "CLIP presence 0.20 below 0.50",
        "second presence 0.10 below 0.40",
    ]
    assert picture.asked == [["dog", "owl", "yak"]]
    assert second.asked == [["dog", "yak"]]


def test_nobody_is_asked_when_nothing_is_left() -> None:
    judge = Judge()
    assert reasons(PresenceGate(0.5, (Witness("CLIP", judge, 0.5),)), ["cat"], [0.1])[0]
    assert judge.asked == []


def test_thresholds_are_checked() -> None:
    with pytest.raises(InputError, match=r"least presence must be between 0 and 1, not 1\.5"):
        PresenceGate(1.5)
    with pytest.raises(InputError, match="least presence of CLIP"):
        Witness("CLIP", Judge(), -0.1)
