"""Errors that a caller may want to catch.

PromptsegError
+-- InputError (also ValueError)        the user's input cannot be used
+-- CheckpointError                     weights are missing, broken or another model's
|   +-- MissingWeightsError             published weights are not on this machine
+-- ModelNotFoundError (also LookupError)  nothing has that name
"""

from __future__ import annotations


class PromptsegError(Exception):
    """Base of all errors that promptseg raises on purpose."""


class InputError(PromptsegError, ValueError):
    """The user's input cannot be used; the message names the remedy."""


class CheckpointError(PromptsegError):
    """Weights are missing, broken or another model's; the message says what to do."""


class MissingWeightsError(CheckpointError):
    """Published weights are not on this machine.

    Attributes:
        what: Which weights are missing and where they were looked for: the message without its
            remedy.
    """

    def __init__(self, what: str, remedy: str) -> None:
        super().__init__(f"{what}: {remedy}")
        self.what = what


class ModelNotFoundError(PromptsegError, LookupError):
    """Nothing has that name; the message lists the names that exist."""
