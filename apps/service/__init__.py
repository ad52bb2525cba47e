"""Answers requests of other programs over HTTP, and what every server of the apps shares.

Nothing here needs Gradio, and only `http` and what it imports need FastAPI.
"""
