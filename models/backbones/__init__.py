"""Backbones that more than one family of models reads."""
