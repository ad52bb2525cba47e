"""An ML backend for Label Studio: pre-annotation by label names, clicks, boxes and text."""
