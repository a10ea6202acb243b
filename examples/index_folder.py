"""Keep an index in step with a folder: new pictures are added, changed ones replaced, the rest skipped."""

from __future__ import annotations

from _common import OUTPUT, example_embedding, photographs
from llama_index.core.ingestion import DocstoreStrategy, IngestionPipeline
from llama_index.core.storage.docstore import SimpleDocumentStore
from PIL import Image, ImageOps

from llama_index_multimodal_rerank import load_image_nodes, milvus_store

folder = photographs()
embed_model = example_embedding()
pipeline = IngestionPipeline(
    transformations=[embed_model],
    vector_store=milvus_store(OUTPUT / "folder.db", embed_model, overwrite=True),
    docstore=SimpleDocumentStore(),  # remembers the digest of every picture; persist it to use it tomorrow
    docstore_strategy=DocstoreStrategy.UPSERTS,
)

embedded = pipeline.run(documents=load_image_nodes(folder, on_error="skip"))
print(f"first run:  {len(embedded)} pictures embedded")

embedded = pipeline.run(documents=load_image_nodes(folder, on_error="skip"))
print(f"second run: {len(embedded)} pictures embedded (nothing changed)")

changed = folder / "coffee.png"
ImageOps.mirror(Image.open(changed)).save(changed)
embedded = pipeline.run(documents=load_image_nodes(folder, on_error="skip"))
print(f"third run:  {len(embedded)} picture embedded: {embedded[0].metadata['file_name']}")
