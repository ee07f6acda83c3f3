"""How the page looks: quiet, one accent, the same in light and dark. Colours are named here alone."""

from importlib.resources import files

import gradio as gr


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
    ).set(
        # A contrast of 4.5 to 1 and more for every text, as WCAG 1.4.3 asks.
        body_text_color_subdued="*neutral_600",
        body_text_color_subdued_dark="*neutral_400",
        block_label_text_color="*neutral_700",
        block_label_text_color_dark="*neutral_300",
        block_info_text_color="*neutral_600",
        block_info_text_color_dark="*neutral_400",
        button_primary_background_fill="*primary_700",
        button_primary_background_fill_dark="*primary_700",
        button_primary_background_fill_hover="*primary_800",
        button_primary_background_fill_hover_dark="*primary_600",
    )


def page_css() -> str:
    """Return the style sheet."""
    return files("webui").joinpath("page.css").read_text("utf-8")


def page_head() -> str:
    """Return what stands in the head of every page: a small script."""
    return f"<script>{files('webui').joinpath('page.js').read_text('utf-8')}</script>"
