"""The page 'Export'."""

import gradio as gr

from webui.desk import Desk


def build(_desk: Desk) -> None:
    """Add the page's parts and events."""
    gr.Markdown("# Export")
