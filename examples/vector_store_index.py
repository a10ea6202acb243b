"""The shortest way: a VectorStoreIndex over pictures, in memory, no database at all."""

from __future__ import annotations

from _common import photograph_model, photographs, print_hits
from llama_index.core import VectorStoreIndex

from llama_index_multimodal_rerank import ImageTextQuery, load_image_nodes

embed_model = photograph_model(__doc__)
folder = photographs()
index = VectorStoreIndex(load_image_nodes(folder), embed_model=embed_model, show_progress=True)
retriever = index.as_retriever(similarity_top_k=3)

coffee = str(folder / "coffee.png")
print_hits("picture + text", retriever.retrieve(ImageTextQuery("from above", image_path=coffee)))
print_hits("picture alone", retriever.retrieve(ImageTextQuery(image_path=coffee)))
print_hits("text alone", retriever.retrieve(ImageTextQuery("a cup of coffee")))
