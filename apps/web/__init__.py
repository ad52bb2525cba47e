"""The web app: a page for text, references, clicks and everything mode, and the same as an API.

Modules here import gradio at the top; the rest of the package imports them only inside the
command `promptseg app`.
"""
