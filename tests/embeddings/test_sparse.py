"""BGEM3SparseEmbedding on a tiny BGE-M3 made here: by FlagEmbedding where it imports, and without it."""

from __future__ import annotations

import copy
import pickle
import shutil
import sys
from pathlib import Path

import pytest
import torch
from llama_index.core import VectorStoreIndex
from support.visualized_bge_golden import CASES, GOLDEN, TINY_XLMR
from transformers import AutoTokenizer, XLMRobertaConfig, XLMRobertaModel

from llama_index_multimodal_rerank import (
    BGEM3SparseEmbedding,
    ImageTextQuery,
    VisualizedBGEEmbedding,
    load_image_nodes,
    milvus_store,
)

TOKENIZER = GOLDEN / CASES["models"][TINY_XLMR]["tokenizer"]


@pytest.fixture(params=["FlagEmbedding, where it imports", "native"])
def either_way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever computes the weights, the test must pass."""
    if request.param == "native":
        monkeypatch.setitem(sys.modules, "FlagEmbedding", None)


@pytest.fixture(scope="module")
def bge_m3(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("bge-m3")
    for file in TOKENIZER.iterdir():
        shutil.copy(file, folder)
    torch.manual_seed(0)
    config = XLMRobertaConfig.from_pretrained(folder, num_hidden_layers=1)
    XLMRobertaModel(config).save_pretrained(folder)
    torch.save(torch.nn.Linear(config.hidden_size, 1).state_dict(), folder / "sparse_linear.pt")
    colbert = torch.nn.Linear(config.hidden_size, config.hidden_size)
    torch.save(colbert.state_dict(), folder / "colbert_linear.pt")
    return folder


def lexical_weights(folder: Path, text: str) -> dict[int, float]:
    """The paper's formula by hand: relu(w . h + b) for each token, the largest for each id."""
    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = XLMRobertaModel.from_pretrained(folder).eval()
    linear = torch.load(folder / "sparse_linear.pt", weights_only=True)
    batch = tokenizer(text, return_tensors="pt")
    with torch.no_grad():
        hidden = model(**batch).last_hidden_state[0]
    weights: dict[int, float] = {}
    for token, vector in zip(batch["input_ids"][0].tolist(), hidden, strict=True):
        weight = torch.relu(linear["weight"][0] @ vector + linear["bias"][0]).item()
        if weight > 0 and token not in tokenizer.all_special_ids:
            weights[token] = max(weight, weights.get(token, 0.0))
    return weights


@pytest.mark.usefixtures("either_way")
def test_weights_are_the_papers(bge_m3: Path) -> None:
    sparse = BGEM3SparseEmbedding(str(bge_m3), device="cpu")
    texts = ["a red mug", "", "make the background dark, as if at night", "a red mug a red mug"]
    for encoded in (sparse.encode_documents(texts), sparse.encode_queries(texts)):
        for text, weights in zip(texts, encoded, strict=True):
            if text:
                assert weights == pytest.approx(lexical_weights(bge_m3, text), abs=1e-5)
                assert len(weights) > 1


@pytest.mark.usefixtures("either_way")
def test_empty_texts_match_nothing(bge_m3: Path) -> None:
    sparse = BGEM3SparseEmbedding(str(bge_m3), device="cpu")
    (document,), (query,) = sparse.encode_documents([""]), sparse.encode_queries([" "])
    real = sparse.encode_documents(["a red mug"])[0]
    assert document  # Milvus refuses a vector without entries
    assert query
    assert not document.keys() & query.keys()
    assert not (document.keys() | query.keys()) & real.keys()


@pytest.mark.usefixtures("either_way")
def test_hybrid_search_on_lite(
    bge_m3: Path, embed_model: VisualizedBGEEmbedding, pictures: list[Path], tmp_path: Path
) -> None:
    words = ["a leopard cap", "zebra", "", "oak table", "red brick wall", "blue waves"]
    sparse = BGEM3SparseEmbedding(str(bge_m3), device="cpu")
    for _ in range(2):  # made, and opened again
        store = milvus_store(tmp_path / "m.db", embed_model, sparse_embedding_function=sparse)
        nodes = load_image_nodes(pictures, text=lambda path: words[int(path.stem[-1])])
        store.add(list(embed_model(nodes)))
    index = VectorStoreIndex.from_vector_store(store, embed_model=embed_model)
    only_words = index.as_retriever(similarity_top_k=1, vector_store_query_mode="sparse")
    assert only_words.retrieve(ImageTextQuery("oak table"))[0].node.text == "oak table"
    hybrid = index.as_retriever(similarity_top_k=6, vector_store_query_mode="hybrid")
    hits = hybrid.retrieve(ImageTextQuery("oak table", image_path=str(pictures[2])))
    assert len(hits) == 6
    assert hits[0].node.text == "oak table"  # first among the words
    image_only = hybrid.retrieve(ImageTextQuery("", image_path=str(pictures[2])))
    assert image_only[0].node.image_path == str(pictures[2])


@pytest.mark.usefixtures("either_way")
def test_a_checkpoint_without_its_sparse_head_is_refused(bge_m3: Path, tmp_path: Path) -> None:
    # FlagEmbedding itself would go on with a head of random weights.
    folder = tmp_path / "incomplete"
    shutil.copytree(bge_m3, folder)
    (folder / "sparse_linear.pt").unlink()
    with pytest.raises(FileNotFoundError, match=r"sparse_linear\.pt missing"):
        BGEM3SparseEmbedding(str(folder)).encode_queries(["a"])


def test_no_hub_is_an_exception(tmp_path: Path) -> None:
    # LlamaIndex' own BGEM3SparseEmbeddingFunction ends the process here.
    sparse = BGEM3SparseEmbedding("BAAI/bge-m3", cache_folder=str(tmp_path), local_files_only=True)
    with pytest.raises(OSError, match=r"(?s)neither a local folder nor .*hf download BAAI/bge-m3"):
        sparse.encode_documents(["a"])


def test_a_copy_and_a_pickle_compute_the_same(bge_m3: Path) -> None:
    sparse = BGEM3SparseEmbedding(str(bge_m3), device="cpu", max_length=16)
    expected = sparse.encode_documents(["a red mug"])
    assert copy.deepcopy(sparse).encode_documents(["a red mug"]) == expected
    unpickled = pickle.loads(pickle.dumps(sparse))
    assert unpickled.max_length == 16
    assert unpickled.encode_documents(["a red mug"]) == expected


@pytest.mark.usefixtures("either_way")
def test_texts_are_cut_off_at_max_length(bge_m3: Path) -> None:
    text = "a red mug on a table in the river"
    whole = BGEM3SparseEmbedding(str(bge_m3), device="cpu").encode_documents([text, "x"])
    assert max(map(len, whole)) > 3
    for max_length in (3, 5):
        (cut, _) = BGEM3SparseEmbedding(
            str(bge_m3), device="cpu", max_length=max_length, batch_size=1
        ).encode_documents([text, "x"])
        assert len(cut) <= max_length - 2


@pytest.mark.parametrize("wrong", [{"max_length": 8193}, {"max_length": 2}, {"batch_size": 0}])
def test_impossible_lengths_are_refused_at_once(wrong: dict[str, int]) -> None:
    # tokenizers cut off nothing at all with max_length=1
    (name, value) = next(iter(wrong.items()))
    with pytest.raises(ValueError, match=rf"{name}={value} is not possible; give "):
        BGEM3SparseEmbedding(**wrong)
