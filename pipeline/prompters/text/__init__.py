"""Phrases to prompts."""
