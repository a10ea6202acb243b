"""What is where on the page; what happens when is in ``page.py``."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import gradio as gr

from .filter_panel import MAX_CHOICES, MAX_RANGES
from .markup import render
from .query_picture import query_picture

STRATEGIES = [
    ("the whole list (listwise)", "listwise"),
    ("first token: one pass", "first_token"),
    ("no reranking", "none"),
]

MOST_RESULTS = 25

_CLICKS = """
element.addEventListener('click', event => {
  const card = event.target.closest('button[data-place]');
  if (card) trigger('click', {list: card.dataset.list, place: Number(card.dataset.place)});
});
const mark = (event, on) => {
  const card = event.target.closest && event.target.closest('button[data-key]');
  element.querySelectorAll('.ir-card.same').forEach(other => other.classList.remove('same'));
  if (card && on) element.querySelectorAll('button[data-key]').forEach(other => {
    if (other !== card && other.dataset.key === card.dataset.key) other.classList.add('same');
  });
};
element.addEventListener('mouseover', event => mark(event, true));
element.addEventListener('mouseleave', event => mark(event, false));
element.addEventListener('focusin', event => mark(event, true));
"""
"""Tells which card was clicked, and marks a picture in the other list while one points at it."""


@dataclass(frozen=True)
class Layout:
    """The components of the page that something happens to."""

    message: gr.HTML
    picture: gr.Image
    words: gr.Textbox
    search: gr.Button
    clear: gr.Button
    examples: gr.HTML
    number: gr.Slider
    strategy: gr.Radio
    choices: Sequence[gr.Dropdown]
    ranges: Sequence[tuple[gr.Number, gr.Number]]
    no_filters: gr.Markdown
    panel: gr.State
    collection: gr.Dropdown
    folder: gr.Textbox
    index: gr.Button
    indexed: gr.HTML
    lists: gr.HTML
    said: gr.HTML
    compared: gr.HTML
    saw: gr.HTML
    shown: gr.State

    @property
    def filters(self) -> list[gr.Dropdown | gr.Number]:
        """The components that filters are set with, in a fixed order."""
        return [*self.choices, *(number for pair in self.ranges for number in pair)]


def lay_out(about: str, collections: Sequence[str]) -> Layout:
    """Lay out the page inside an open ``gr.Blocks``.

    Args:
        about: one line below the title, such as which models are at work.
        collections: names of the collections that can be searched, the first is chosen.
    """
    gr.HTML(render("head", about=about))
    message = gr.HTML(elem_id="message")
    with gr.Row(equal_height=False):
        with gr.Column(scale=4, min_width=320):
            with gr.Group():
                picture = query_picture(
                    label="Query picture",
                    sources=["upload", "clipboard"],
                    height=230,
                    buttons=[],
                    elem_id="picture",
                    placeholder="Drop a picture here, or click to choose one",
                )
                words = gr.Textbox(
                    label="Words",
                    placeholder="the same, but in red",
                    lines=1,
                    max_lines=1,
                    max_length=2000,
                    elem_id="words",
                )
            with gr.Row():
                search = gr.Button("Search", variant="primary", elem_id="search", scale=3, min_width=120)
                clear = gr.Button("Clear", elem_id="clear", scale=1, min_width=80)
            examples = gr.HTML(elem_id="examples", js_on_load=_CLICKS)
            with gr.Accordion("Number and strategy", open=False):
                number = gr.Slider(
                    1,
                    MOST_RESULTS,
                    value=9,
                    step=1,
                    label="Pictures to retrieve and rerank",
                    elem_id="number",
                )
                strategy = gr.Radio(STRATEGIES, value="listwise", label="How to rerank", elem_id="strategy")
            with gr.Accordion("Filters", open=False, elem_id="filters"):
                no_filters = gr.Markdown("The pictures have no metadata that tells them apart.", visible=True)
                choices = [
                    gr.Dropdown([], multiselect=True, visible=False, elem_id=f"choice-{number}")
                    for number in range(MAX_CHOICES)
                ]
                with gr.Row():
                    ranges = [
                        (
                            gr.Number(visible=False, min_width=120, elem_id=f"least-{number}"),
                            gr.Number(visible=False, min_width=120, elem_id=f"most-{number}"),
                        )
                        for number in range(MAX_RANGES)
                    ]
            with gr.Accordion("Collection", open=False, elem_id="collections"):
                collection = gr.Dropdown(
                    list(collections), value=collections[0], label="Search in", elem_id="collection"
                )
                folder = gr.Textbox(
                    label="Index a folder of this machine",
                    placeholder="/home/me/photos",
                    max_lines=1,
                    elem_id="folder",
                )
                index = gr.Button("Index", elem_id="index")
                indexed = gr.HTML(min_height=70, elem_id="indexed")
        with gr.Column(scale=11, min_width=340), gr.Tabs():
            with gr.Tab("Results"):
                lists = gr.HTML(render("start"), elem_id="lists", js_on_load=_CLICKS)
                said = gr.HTML(elem_id="said")
            with gr.Tab("Compare"):
                compared = gr.HTML(render("start"), elem_id="compared", js_on_load=_CLICKS)
            with gr.Tab("Why"):
                saw = gr.HTML(render("start"), elem_id="saw")
    return Layout(
        message=message,
        picture=picture,
        words=words,
        search=search,
        clear=clear,
        examples=examples,
        number=number,
        strategy=strategy,
        choices=choices,
        ranges=ranges,
        no_filters=no_filters,
        panel=gr.State(None),
        collection=collection,
        folder=folder,
        index=index,
        indexed=indexed,
        lists=lists,
        said=said,
        compared=compared,
        saw=saw,
        shown=gr.State(None),
    )
