"""Measuring pipelines on labelled pictures: what `promptseg eval` does."""
