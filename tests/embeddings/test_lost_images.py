"""Whatever lost its picture on the way to the embedding is refused, by every entrance; a text is a text."""

from __future__ import annotations

import json
from collections.abc import Callable
from importlib.metadata import version
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from llama_index.core import Settings, SimpleDirectoryReader, VectorStoreIndex
from llama_index.core.ingestion import IngestionPipeline
from llama_index.core.node_parser import SentenceSplitter, TokenTextSplitter
from llama_index.core.schema import (
    BaseNode,
    Document,
    ImageDocument,
    ImageNode,
    MediaResource,
    Node,
    QueryBundle,
    TextNode,
)
from llama_index.core.storage.kvstore import SimpleKVStore
from PIL import features
from support.drawing import draw_picture

from llama_index_multimodal_rerank import (
    ImageText,
    ImageTextQuery,
    VisualizedBGEEmbedding,
    image_node,
    load_image_nodes,
    to_image_nodes,
)

Index = Callable[[list[BaseNode], VisualizedBGEEmbedding], Any]

WAYS: dict[str, Index] = {
    "embedding": lambda nodes, model: model(nodes),
    "pipeline": lambda nodes, model: IngestionPipeline(transformations=[model]).run(nodes=nodes),
    "index": lambda nodes, model: VectorStoreIndex(nodes, embed_model=model),
    "from_documents": lambda nodes, model: VectorStoreIndex.from_documents(
        nodes,  # type: ignore[arg-type]
        embed_model=model,
        transformations=[model],
    ),
}


# -- readers and splitters ---------------------------------------------------------------------


@pytest.mark.parametrize("way", WAYS)
def test_documents_of_a_reader_that_knows_no_pictures(
    embed_model: VisualizedBGEEmbedding, pictures: list[Path], way: str
) -> None:
    documents = SimpleDirectoryReader(
        input_files=[pictures[0]], file_extractor={".png": NoReader()}
    ).load_data()
    with pytest.raises(ValueError, match=r"picture's bytes.*load_image_nodes"):
        WAYS[way](documents, embed_model)  # type: ignore[arg-type]


class NoReader:
    """What SimpleDirectoryReader does where llama-index-readers-file is not installed."""

    def load_data(self, file: Path, extra_info: dict[str, Any] | None = None, **_: Any) -> list[Document]:
        return [Document(text=file.read_bytes().decode("utf-8", "ignore"), metadata=extra_info or {})]


def formats() -> list[str]:
    every = ["PNG", "JPEG", "GIF", "BMP", "TIFF", "WEBP", "AVIF"]
    return [name for name in every if name not in ("WEBP", "AVIF") or features.check(name.lower())]


@pytest.mark.parametrize("name", formats())
@pytest.mark.parametrize("errors", ["ignore", "replace"])
@pytest.mark.parametrize("with_exif", [False, True])
def test_bytes_of_every_format(
    embed_model: VisualizedBGEEmbedding, name: str, errors: str, with_exif: bool
) -> None:
    stream, picture = BytesIO(), draw_picture(0, (200, 150))
    if with_exif:
        picture.getexif()[271] = "Maker"
    picture.save(stream, name, **({"exif": picture.getexif()} if with_exif else {}))
    text = stream.getvalue().decode("utf-8", errors)
    for node in (Document(text=text), Document(text=text, metadata={"file_path": "a.png"})):
        with pytest.raises(ValueError, match="picture's bytes"):
            embed_model([node])
        with pytest.raises(ValueError, match="picture's bytes"):
            VectorStoreIndex([node], embed_model=embed_model)


@pytest.mark.parametrize(
    "text", ["PNG\nis a format", "GIF89a", "BM25 finds words\0", "II*\0"[:3], "RIFF\0 WEBP", "JFIF\0 Exif\0"]
)
def test_texts_about_formats_are_texts(embed_model: VisualizedBGEEmbedding, text: str) -> None:
    assert embed_model([TextNode(text=text)])[0].embedding is not None
    assert len(embed_model.get_text_embedding(text)) == embed_model.dim


@pytest.mark.parametrize(
    "splitter",
    [
        pytest.param(
            SentenceSplitter,
            marks=pytest.mark.skipif(
                version("llama-index-core") == "0.14.0", reason="it wants to download words for NLTK"
            ),
        ),
        TokenTextSplitter,
    ],
)
@pytest.mark.parametrize("include_metadata", [True, False])
def test_splitters_lose_pictures_of_every_kind(
    embed_model: VisualizedBGEEmbedding, pictures: list[Path], splitter: Any, include_metadata: bool
) -> None:
    for node in (
        image_node(pictures[0], text="a mug"),
        ImageNode(image_path=str(pictures[0]), text="a mug"),
        ImageNode(image_path=str(pictures[0]), text="a mug", metadata={"image_digest": "sha256:" + "0" * 64}),
    ):
        for run in (
            lambda node=node: IngestionPipeline(
                transformations=[splitter(include_metadata=include_metadata), embed_model]
            ).run(nodes=[node]),
            lambda node=node: embed_model(splitter(include_metadata=include_metadata)([node])),
        ):
            with pytest.raises(ValueError, match=r"TextNode .*names a picture but does not carry it"):
                run()
    parts = splitter()([Document(text="a mug. " * 2000, metadata={"k": 1})])
    assert len(embed_model(parts)) == len(parts) > 1


@pytest.mark.parametrize("way", ["embedding", "pipeline", "from_documents"])
def test_other_peoples_pictures_are_embedded_as_such_or_refused(
    embed_model: VisualizedBGEEmbedding, pictures: list[Path], way: str
) -> None:
    expected = embed_model.get_image_text_embedding("a mug", pictures[0])
    for node in (
        ImageDocument(image_path=str(pictures[0]), text="a mug"),
        Document(image_resource=MediaResource(path=pictures[0]), text="a mug"),
        Node(image_resource=MediaResource(path=pictures[0]), text_resource=MediaResource(text="a mug")),
        ImageNode(image_path=str(pictures[0]), text="a mug", metadata={"file_path": str(pictures[0])}),
    ):
        with pytest.raises(ValueError, match=r"which picture.*to_image_nodes"):
            WAYS[way]([node], embed_model)
        made = to_image_nodes([node])
        WAYS[way](made, embed_model)
        if way != "from_documents":
            np.testing.assert_allclose(made[0].embedding, expected, atol=5e-6)


def test_an_index_embeds_no_metadata_instead_of_a_picture(
    embed_model: VisualizedBGEEmbedding, pictures: list[Path]
) -> None:
    facts = {"brand": "Acme", "file_path": str(pictures[0]), "file_name": pictures[0].name}
    plain = ImageNode(image_path=str(pictures[0]), metadata=facts)
    told = r"is the metadata of a picture.*VectorStoreIndex\(to_image_nodes\(nodes\)"
    with pytest.raises(ValueError, match=told):
        VectorStoreIndex([plain], embed_model=embed_model)
    with pytest.raises(ValueError, match=told):
        VectorStoreIndex([TextNode(text="a mug"), plain], embed_model=embed_model, use_async=True)
    index = VectorStoreIndex(to_image_nodes([plain]), embed_model=embed_model)
    (hit,) = index.as_retriever().retrieve(ImageTextQuery(image_path=str(pictures[0])))
    assert hit.score == pytest.approx(1.0)
    for text in ("file_name: a.png is missing\n\na mug", "see a.png", "Note: the file_name: a.png"):
        assert embed_model.get_text_embedding_batch([text])
    assert embed_model.get_query_embedding("file_name: a.png")


def test_what_an_index_cannot_tell(
    embed_model: VisualizedBGEEmbedding, pictures: list[Path], capsys: pytest.CaptureFixture[str]
) -> None:
    # The limits that the README names: if one of these fails, LlamaIndex hands out more than strings.
    captioned = ImageNode(image_path=str(pictures[0]), text="a mug")
    left = SentenceSplitter(include_metadata=False)([image_node(pictures[0], text="a mug")])
    for nodes in ([captioned], left):
        (hit,) = VectorStoreIndex(nodes, embed_model=embed_model).as_retriever().retrieve("a mug")
        assert hit.score == pytest.approx(1.0)
    index = VectorStoreIndex([ImageNode(image_path=str(pictures[0]))], embed_model=embed_model)
    assert index.index_struct.nodes_dict == {}
    made = VectorStoreIndex(to_image_nodes([captioned]), embed_model=embed_model)
    (hit,) = made.as_retriever().retrieve(ImageTextQuery("a mug", image_path=str(pictures[0])))
    assert hit.score == pytest.approx(1.0)


# -- queries -----------------------------------------------------------------------------------


def test_queries_that_carry_no_picture(embed_model: VisualizedBGEEmbedding, pictures: list[Path]) -> None:
    Settings.llm = None
    index = VectorStoreIndex(load_image_nodes(pictures), embed_model=embed_model)
    retriever = index.as_retriever(similarity_top_k=1)
    engine = index.as_query_engine(similarity_top_k=1, response_mode="no_text")
    for node in (ImageNode(image_path=str(pictures[0])), image_node(pictures[0])):
        for ask in (retriever.retrieve, engine.query):
            with pytest.raises(ValueError, match="valid string"):  # LlamaIndex's own: a node is no query
                ask(node)  # type: ignore[arg-type]
    lost = str.__str__(ImageText("a mug", pictures[0]).with_digest())[:] + " image_digest: sha256:" + "0" * 64
    with pytest.raises(ValueError, match="names a picture but does not carry it"):
        retriever.retrieve(QueryBundle("a mug", custom_embedding_strs=["a mug", lost]))
    carrying = QueryBundle("", custom_embedding_strs=[ImageText("", pictures[3])])
    for hits in (retriever.retrieve(carrying), engine.query(carrying).source_nodes):
        assert hits[0].node.image_path == str(pictures[3])  # type: ignore[union-attr]


# -- a text is a text --------------------------------------------------------------------------


def tag_of(path: Path) -> str:
    return f"[image_digest: {image_node(path).metadata['image_digest']}]"


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize(
    "form", ["{}", "a mug\n{}", "a mug\n{}\nwith a handle", "{}\n[text]", "see {} there"]
)
def test_a_text_that_names_a_picture_is_embedded_as_text(
    embed_model: VisualizedBGEEmbedding, pictures: list[Path], way: str, form: str
) -> None:
    text = form.format(tag_of(pictures[0]))
    nodes: list[BaseNode] = [TextNode(text=text), image_node(pictures[0], text="a cup")]
    made = WAYS[way](nodes, embed_model)
    expected = embed_model.model.encode([text])[0]
    if way in ("embedding", "pipeline"):
        np.testing.assert_allclose(made[0].embedding, expected, atol=5e-6)
    else:
        (hit,) = made.as_retriever(similarity_top_k=1).retrieve(text)
        assert (hit.node.text, round(hit.score, 4)) == (text, 1.0)
    np.testing.assert_allclose(embed_model.get_text_embedding(text), expected, atol=5e-6)


@pytest.mark.parametrize("line", ["image_digest: sha256:{0}", "[image_digest: unread:{0}]"])
def test_in_a_pipeline_whatever_it_says(embed_model: VisualizedBGEEmbedding, line: str) -> None:
    text = "a mug\n" + line.format("0" * 64)
    (node,) = embed_model([TextNode(text=text)])
    np.testing.assert_allclose(node.embedding, embed_model.model.encode([text])[0], atol=5e-6)
    with pytest.raises(ValueError, match="names a picture"):  # a string is all there is to tell by
        embed_model.get_text_embedding(text)


def test_such_a_text_neither_takes_nor_poisons_a_pictures_place_in_a_cache(
    tiny_checkpoint: Path, pictures: list[Path]
) -> None:
    plain = VisualizedBGEEmbedding(model_name=str(tiny_checkpoint), device="cpu", dtype="float32")
    tag = tag_of(pictures[0])
    texts = ["a mug\n" + tag, f"a mug\n{tag}\n[text]", f"a mug\n{tag}\n[text]\n[text]", tag, f"{tag}\n[text]"]
    carrying = [ImageText("a mug", pictures[0]), ImageText("", pictures[0])]
    expected = [plain.get_text_embedding(text) for text in [*texts, *carrying]]
    assert len({tuple(np.round(vector, 4)) for vector in expected}) == 7
    nodes = [TextNode(text=text) for text in texts]
    for text_first in (True, False):
        cached = VisualizedBGEEmbedding(
            model_name=str(tiny_checkpoint), device="cpu", dtype="float32", embeddings_cache=SimpleKVStore()
        )
        for turn in range(4):
            if (turn % 2 == 0) == text_first:
                found = [node.embedding for node in cached(nodes)]
                np.testing.assert_allclose(found, expected[:5], atol=5e-6)
            else:
                found = [cached.get_text_embedding(text) for text in carrying]
                np.testing.assert_allclose(found, expected[5:], atol=5e-6)


def test_characters_of_a_text_with_a_picture_are_no_text(
    embed_model: VisualizedBGEEmbedding, pictures: list[Path]
) -> None:
    node = image_node(pictures[0], text="a mug")
    content = node.get_content("embed")  # type: ignore[arg-type]
    copied = json.loads(json.dumps(content))
    assert type(copied) is str
    with pytest.raises(ValueError, match="names a picture but does not carry it"):
        embed_model.get_text_embedding(copied)
    with pytest.raises(ValueError, match="names a picture but does not carry it"):
        VectorStoreIndex([TextNode(text=copied)], embed_model=embed_model)


def test_a_caption_of_ones_own_is_let_through_by_excluding_the_digest(
    embed_model: VisualizedBGEEmbedding, pictures: list[Path]
) -> None:
    metadata = image_node(pictures[0]).metadata
    with pytest.raises(ValueError, match="names a picture"):
        embed_model([TextNode(text="a mug", metadata=metadata)])
    caption = TextNode(text="a mug", metadata=metadata, excluded_embed_metadata_keys=list(metadata))
    (node,) = embed_model([caption])
    np.testing.assert_allclose(node.embedding, embed_model.get_text_embedding("a mug"), atol=5e-6)
