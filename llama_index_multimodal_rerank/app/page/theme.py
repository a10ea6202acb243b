"""How the page looks: Gradio's theme with fonts of the reader's machine, so that nothing is fetched."""

from __future__ import annotations

import gradio as gr

_FONT = ["system-ui", "-apple-system", "Segoe UI", "Roboto", "DejaVu Sans", "sans-serif"]
_MONOSPACE = ["ui-monospace", "Menlo", "Consolas", "DejaVu Sans Mono", "monospace"]


def page_theme() -> gr.themes.Base:
    """Return the theme."""
    return gr.themes.Soft(
        primary_hue="indigo",
        secondary_hue="indigo",
        neutral_hue="zinc",
        radius_size="lg",
        font=_FONT,
        font_mono=_MONOSPACE,
    ).set(
        body_text_color_subdued="#5c5d66",
        body_text_color_subdued_dark="#a5a6b0",
        body_background_fill="#f6f6f8",
        body_background_fill_dark="#111216",
        block_background_fill="white",
        block_background_fill_dark="#1a1b20",
        background_fill_primary_dark="#1f2026",
        background_fill_secondary_dark="#1a1b20",
        border_color_primary="#e4e4e9",
        border_color_primary_dark="#303138",
        input_background_fill_dark="#222329",
        block_label_background_fill="white",
        block_label_background_fill_dark="#1a1b20",
        block_label_text_color="*body_text_color_subdued",
        block_label_text_color_dark="*body_text_color_subdued",
        block_title_text_color="*body_text_color",
        block_title_background_fill="transparent",
        block_title_background_fill_dark="transparent",
        block_title_padding="0",
        block_title_text_weight="550",
        block_shadow="none",
        block_shadow_dark="none",
    )
