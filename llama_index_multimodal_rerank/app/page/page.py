"""What happens on the page: each event with what it reads and what it changes."""

from __future__ import annotations

import functools
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import gradio as gr

from ...images.access import DEFAULT_ACCESS, ImageAccess
from ...schema.nodes import node_image
from ..models import DEMO
from ..search import Hit, SearchRequest
from .examples import Example, demo_examples, render_examples
from .filter_panel import MAX_CHOICES, MAX_RANGES, FilterPanel
from .indexing import folder_of, in_words, show_progress
from .layout import Layout, lay_out
from .markup import render
from .messages import NOTHING, error_message, note
from .open_collections import OpenCollections
from .query_picture import copy_for_query, query_access, read_upload
from .steps import Screen, search_in_steps

KEPT_SECONDS = 30 * 60
"""How long an upload is kept after it was last searched with."""

SEARCHES_AT_ONCE = 4

_SWEEP_SECONDS = 30
_MAX_WAITING = 64

_Item = TypeVar("_Item")

_TO_RESULTS = (
    "() => { if (innerWidth < 900) document.querySelector('#lists').scrollIntoView({behavior: 'smooth'}); }"
)
_TO_WORDS = (
    "() => { const words = document.querySelector('#words textarea, #words input');"
    " words.focus();"
    " document.querySelector('#picture').scrollIntoView({block: 'nearest', behavior: 'smooth'}); }"
)

_PASTE = """() => addEventListener('paste', event => {
  const pasted = [...(event.clipboardData?.files ?? [])].find(file => file.type.startsWith('image/'));
  if (!pasted) return;
  event.preventDefault();
  const chosen = document.querySelector('#picture input[type=file]');
  const files = new DataTransfer();
  files.items.add(pasted);
  chosen.files = files.files;
  chosen.dispatchEvent(new Event('change', {bubbles: true}));
})"""
"""A picture that is pasted anywhere on the page is the query's."""


class Page:
    """The page's answers to events. Nothing of a search is kept here: what a session sees is its own state.

    Args:
        collections: what can be searched.
        uploads: the folder that query pictures are in.
    """

    def __init__(self, collections: OpenCollections, uploads: Path) -> None:
        self._collections = collections
        self._uploads = uploads
        self._access: ImageAccess = query_access(uploads)
        self._examples: list[Example] = []
        first = collections[collections.titles[0]]
        if first.source.is_demo:
            self._examples = demo_examples()

    # -- a search -----------------------------------------------------------------------------

    def search(
        self,
        picture: str | None,
        words: str | None,
        number: float,
        strategy: str,
        collection: str,
        panel: FilterPanel | None,
        *filters: Any,
    ) -> Iterator[tuple[Any, ...]]:
        """Search, and show each stage: message, lists, said, compared, saw, hits.

        ``panel`` says what ``filters`` are, in the order in which this session was shown them. That of the
        collection may have changed since, when somebody indexed it.
        """
        try:
            panel = panel or self._collections.panel(collection)
            limits = filters[MAX_CHOICES:]
            request = SearchRequest(
                text=words or "",
                image=None if picture is None else read_upload(picture, self._access),
                top_k=int(number),
                strategy=strategy,  # type: ignore[arg-type]  # checked by it
                filters=panel.filters(
                    filters[:MAX_CHOICES], list(zip(limits[::2], limits[1::2], strict=True))
                ),
            )
            for screen in search_in_steps(self._collections[collection], request):
                yield (NOTHING, *_shown(screen))
        except Exception as error:
            yield (error_message(error), *_shown(_NOTHING_FOUND))

    # -- the query's picture ------------------------------------------------------------------

    def check_picture(self, picture: str | None) -> tuple[Any, str]:
        """Take an upload away again that is no picture: picture, message."""
        if picture is None:
            return gr.skip(), NOTHING
        try:
            read_upload(picture, self._access)
        except Exception as error:
            return None, error_message(error)
        return gr.skip(), NOTHING

    def more_like(
        self, hits: Mapping[str, Sequence[Hit]] | None, event: gr.EventData
    ) -> tuple[Any, Any, str]:
        """Make the picture of a result that was clicked the query's: picture, words, message."""
        try:
            hit = _clicked(hits or {}, event)
            source = node_image(hit.node)
            if source is None:
                raise ValueError("this result has no picture to search with")
            picture = copy_for_query(source, DEFAULT_ACCESS, self._uploads)
        except Exception as error:
            return gr.skip(), gr.skip(), error_message(error)
        title = hit.title or hit.file or "this picture"
        return picture, "", note(f"More like “{title}”: say what should be different, or search as it is.")

    def try_example(self, event: gr.EventData) -> tuple[Any, Any, str]:
        """Ask the question that was clicked: picture, words, message."""
        try:
            example = _at(self._examples, event.place)
            return copy_for_query(example.image, DEFAULT_ACCESS, self._uploads), example.words, NOTHING
        except Exception as error:
            return gr.skip(), gr.skip(), error_message(error)

    # -- collections --------------------------------------------------------------------------

    def greet(self, chosen: str) -> tuple[Any, ...]:
        """Show a session what there is when it begins: examples, collection, then as :meth:`choose`."""
        titles = self._collections.titles
        chosen = chosen if chosen in titles else titles[0]
        return render_examples(self._examples), gr.Dropdown(titles, value=chosen), *self.choose(chosen)

    def choose(self, chosen: str) -> tuple[Any, ...]:
        """Show what a collection can be filtered by: the sentence where there is nothing, panel, filters."""
        panel = self._collections.panel(chosen)
        choices: list[Any] = [gr.Dropdown([], value=[], visible=False) for _ in range(MAX_CHOICES)]
        for place, field in enumerate(panel.choices):
            choices[place] = gr.Dropdown(
                [(str(value), value) for value in field.values], value=[], label=field.key, visible=True
            )
        numbers: list[Any] = [gr.Number(None, visible=False) for _ in range(2 * MAX_RANGES)]
        for place, field in enumerate(panel.ranges):
            for side, (name, limit) in enumerate((("from", field.low), ("to", field.high))):
                numbers[2 * place + side] = gr.Number(
                    None, label=f"{field.key} {name}", placeholder=f"{limit:g}", visible=True
                )
        return gr.Markdown(visible=not (panel.choices or panel.ranges)), panel, *choices, *numbers

    def index(self, folder: str | None, progress: gr.Progress = gr.Progress()) -> tuple[Any, ...]:  # noqa: B008
        """Index a folder and search in it from then on: message, collection, then as :meth:`choose`."""
        try:
            path = folder_of(folder)
            title, done = self._collections.index_folder(path, on_progress=show_progress(progress))
        except Exception as error:
            return error_message(error), *[gr.skip()] * (3 + MAX_CHOICES + 2 * MAX_RANGES)
        collection = gr.Dropdown(self._collections.titles, value=title)
        return in_words(path, done), collection, *self.choose(title)


def build_page(collections: OpenCollections, uploads: Path, *, kept_seconds: int = KEPT_SECONDS) -> gr.Blocks:
    """Return the page, to be started by :func:`.server.start`.

    Args:
        collections: what can be searched.
        uploads: the folder of uploads, of :func:`.server.upload_folder`.
        kept_seconds: how long an upload is kept after it was last searched with.
    """
    page = Page(collections, uploads)
    first = collections[collections.titles[0]]
    about = f"Retrieved with {first.models.embedding_name}, reranked with {first.models.reranker_name}"
    if first.models.embedding_name == first.models.reranker_name == DEMO:
        about = "Demo models: they know drawings like these, and nothing else"
    sweep = (min(_SWEEP_SECONDS, kept_seconds), kept_seconds)
    blocks: gr.Blocks
    with gr.Blocks(title="Image search", analytics_enabled=False, delete_cache=sweep) as blocks:
        layout = lay_out(about, collections.titles)
        _connect_search(page, layout)
        _connect_picture(page, layout)
        _connect_collections(page, layout, blocks)
    blocks.queue(max_size=_MAX_WAITING, default_concurrency_limit=SEARCHES_AT_ONCE)
    return blocks


_PRIVATE: dict[str, Any] = {"api_visibility": "private"}


def _connect_search(page: Page, layout: Layout) -> None:
    asked = [
        layout.picture,
        layout.words,
        layout.number,
        layout.strategy,
        layout.collection,
        layout.panel,
        *layout.filters,
    ]
    shown = [layout.message, layout.lists, layout.said, layout.compared, layout.saw, layout.shown]
    search = functools.partial(gr.on, inputs=asked, outputs=shown, show_progress="minimal")
    search([layout.search.click, layout.words.submit], page.search, api_name="search")
    gr.on([layout.search.click, layout.words.submit], None, js=_TO_RESULTS, **_PRIVATE)
    question = [layout.picture, layout.words, layout.message]
    clicked = gr.on([layout.examples.click], page.try_example, outputs=question, **_PRIVATE)
    clicked.then(page.search, asked, shown, show_progress="minimal", **_PRIVATE)
    clicked.then(None, js=_TO_RESULTS, **_PRIVATE)


def _connect_picture(page: Page, layout: Layout) -> None:
    layout.picture.upload(page.check_picture, layout.picture, [layout.picture, layout.message], **_PRIVATE)
    question = [layout.picture, layout.words, layout.message]
    for cards in (layout.lists, layout.compared):
        clicked = cards.click(page.more_like, layout.shown, question, **_PRIVATE)
        clicked.then(None, js=_TO_WORDS, **_PRIVATE)
    layout.clear.click(lambda: (None, "", NOTHING), None, question, **_PRIVATE)


def _connect_collections(page: Page, layout: Layout, blocks: gr.Blocks) -> None:
    panel = [layout.no_filters, layout.panel, *layout.filters]
    blocks.load(
        page.greet,
        layout.collection,
        [layout.examples, layout.collection, *panel],
        show_progress="hidden",
        **_PRIVATE,
    )
    blocks.load(None, js=_PASTE, **_PRIVATE)
    layout.collection.change(page.choose, layout.collection, panel, show_progress="hidden", **_PRIVATE)
    gr.on(
        [layout.index.click, layout.folder.submit],
        page.index,
        layout.folder,
        [layout.indexed, layout.collection, *panel],
        concurrency_limit=1,
        show_progress_on=layout.indexed,
        **_PRIVATE,
    )


_NOTHING_FOUND = Screen(lists=render("start"), compared=render("start"), saw=render("start"))


def _shown(screen: Screen) -> tuple[Any, ...]:
    return screen.lists, screen.said, screen.compared, screen.saw, screen.hits


def _clicked(hits: Mapping[str, Sequence[Hit]], event: gr.EventData) -> Hit:
    """Return the result that was clicked; what the browser sends is not trusted."""
    name = event.list
    if not isinstance(name, str) or name not in hits:
        raise ValueError("this list is not there any more: search again")
    return _at(hits[name], event.place)


def _at(items: Sequence[_Item], place: object) -> _Item:
    if not isinstance(place, int) or not 1 <= place <= len(items):
        raise ValueError(f"there is no place {place!r} in this list: it has {len(items)}")
    return items[place - 1]
