"""A standard MilvusVectorStore, and the clients in it."""
