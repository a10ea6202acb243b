"""Composed image retrieval for LlamaIndex."""
