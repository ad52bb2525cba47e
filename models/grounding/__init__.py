"""Text in, evidence in the picture out: which places match a phrase, and whether any does."""
