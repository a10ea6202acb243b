"""Keep an index in step with a folder: add new pictures, replace changed ones, delete removed ones."""

from __future__ import annotations

from _common import OUTPUT, photograph_model, photographs
from llama_index.core.ingestion import DocstoreStrategy, IngestionPipeline
from llama_index.core.storage.docstore import SimpleDocumentStore
from llama_index.core.vector_stores.types import VectorStoreQuery
from PIL import Image, ImageOps

from llama_index_multimodal_rerank import load_image_nodes, milvus_store

embed_model = photograph_model(__doc__)
folder = photographs()
store = milvus_store(OUTPUT / "folder.db", embed_model, overwrite=True)
pipeline = IngestionPipeline(
    transformations=[embed_model],
    vector_store=store,
    docstore=SimpleDocumentStore(),  # remembers the digest of every picture; persist it to use it tomorrow
    docstore_strategy=DocstoreStrategy.UPSERTS_AND_DELETE,
)


def run_and_report(what: str) -> None:
    """Bring the index in step and say what it took."""
    # Not with on_error="skip": a picture that cannot be read today would be deleted like one that is gone.
    embedded = pipeline.run(documents=load_image_nodes(folder))
    everything = VectorStoreQuery(query_embedding=[1.0] * embed_model.dim, similarity_top_k=100)
    rows = len(store.query(everything).ids or [])
    names = [node.metadata["file_name"] for node in embedded]
    print(f"{what}: {len(names)} embedded {names[:1]}, {rows} rows")


run_and_report("first run")
run_and_report("nothing changed")
changed = folder / "coffee.png"
ImageOps.mirror(Image.open(changed)).save(changed)
run_and_report("one changed")
(folder / "moon.png").unlink()
run_and_report("one removed")
