"""Masks to an answer: the ranking, and a phrase weighed with an example."""
