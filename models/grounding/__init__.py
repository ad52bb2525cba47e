"""Grounding phrases in images: where a phrase matches, and whether it matches at all."""
