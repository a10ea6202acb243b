"""LlamaIndex integrations of embedding models."""
