"""A MilvusVectorStore whose ids and filters are quoted, and the clients in it."""
