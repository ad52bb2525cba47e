"""The web app: one page for text, references, clicks and everything mode, and its endpoints.

Everything here may import gradio at the top: only `promptseg app` and :mod:`..web` import it.
"""
