"""Search among some of the pictures: metadata filters run inside Milvus, before the vectors are compared."""

from __future__ import annotations

from _common import OUTPUT, photograph_model, photographs, print_hits
from llama_index.core import VectorStoreIndex
from llama_index.core.ingestion import IngestionPipeline
from llama_index.core.vector_stores import FilterOperator, MetadataFilter, MetadataFilters

from llama_index_multimodal_rerank import ImageTextQuery, load_image_nodes, milvus_store

SPACE = {"astronaut", "hubble_deep_field", "moon", "rocket"}

embed_model = photograph_model(__doc__)
folder = photographs()
store = milvus_store(OUTPUT / "filters.db", embed_model, overwrite=True)
nodes = load_image_nodes(folder, metadata=lambda path: {"shelf": "space" if path.stem in SPACE else "earth"})
IngestionPipeline(transformations=[embed_model], vector_store=store).run(nodes=nodes)

index = VectorStoreIndex.from_vector_store(store, embed_model=embed_model)
query = ImageTextQuery("the same, larger", image_path=str(folder / "moon.png"))

space = MetadataFilters(filters=[MetadataFilter(key="shelf", value="space")])
print_hits("on the shelf 'space'", index.as_retriever(similarity_top_k=3, filters=space).retrieve(query))

large = MetadataFilters(
    filters=[MetadataFilter(key="image_width", value=600, operator=FilterOperator.GTE)]  # set by the loader
)
print_hits("at least 600 pixels wide", index.as_retriever(similarity_top_k=3, filters=large).retrieve(query))
