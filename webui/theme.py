"""How the page looks: quiet, one accent, the same in light and dark. Colours are named here alone."""

from importlib.resources import files

import gradio as gr

ACCENT = "teal"
SERIES = {"raw": "#9db8b5", "smoothed": "#0f766e"}
"""Colours of curves: they keep a contrast of 3 to 1 with both grounds, as WCAG 1.4.11 asks of graphics."""


def page_theme() -> gr.themes.Base:
    """Return the theme. Fonts are the system's: nothing is fetched."""
    return gr.themes.Base(
        primary_hue=gr.themes.colors.teal,
        secondary_hue=gr.themes.colors.teal,
        neutral_hue=gr.themes.colors.stone,
        radius_size=gr.themes.sizes.radius_md,
        spacing_size=gr.themes.sizes.spacing_md,
        font=["system-ui", "sans-serif"],
        font_mono=["ui-monospace", "SFMono-Regular", "Consolas", "monospace"],
    )


def page_css() -> str:
    """Return the style sheet."""
    return files("webui").joinpath("page.css").read_text("utf-8")
