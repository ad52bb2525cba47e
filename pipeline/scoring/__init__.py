"""Masks to an answer: the ranking, and the fusion of a phrase with an example."""
