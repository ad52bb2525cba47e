"""Whole pipelines by one name."""
