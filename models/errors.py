"""Errors that a caller may want to catch.

PromptsegError
+-- InputError (also ValueError)        bad input of the user
+-- CheckpointError                     weights are missing, broken or another model's
+-- ModelNotFoundError (also LookupError)  no model or preset of that name
"""

from __future__ import annotations


class PromptsegError(Exception):
    """Base of all errors that promptseg raises on purpose."""


class InputError(PromptsegError, ValueError):
    """The user's input cannot be used; the message names the remedy."""


class CheckpointError(PromptsegError):
    """Weights are missing, broken or another model's; the message says what to do."""


class ModelNotFoundError(PromptsegError, LookupError):
    """There is no model or preset of that name; the message lists those there are."""
