"""Prompts to masks: the segmenter, refinement, and everything mode."""
