"""For those who have a MultiModalVectorStoreIndex: the same pictures, the same vectors, composed queries."""

from __future__ import annotations

from _common import OUTPUT, photograph_model, photographs, print_hits
from llama_index.core import StorageContext
from llama_index.core.indices import MultiModalVectorStoreIndex

from llama_index_multimodal_rerank import ImageTextQuery, load_image_nodes, milvus_store

embed_model = photograph_model(__doc__)
folder = photographs()
store = milvus_store(OUTPUT / "multi_modal.db", embed_model, overwrite=True)
index = MultiModalVectorStoreIndex(
    load_image_nodes(folder),
    storage_context=StorageContext.from_defaults(image_store=store),
    embed_model=embed_model,
    image_embed_model=embed_model,
    is_text_vector_store_empty=True,  # our pictures have no captions
)
retriever = index.as_retriever(image_similarity_top_k=3)
query = ImageTextQuery("at night", image_path=str(folder / "rocket.jpg"))
print_hits("picture + text", retriever.text_to_image_retrieve(query))
print_hits("picture alone", retriever.image_to_image_retrieve(query))
