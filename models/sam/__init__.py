"""The Segment Anything family: its networks and reading its published weights."""
