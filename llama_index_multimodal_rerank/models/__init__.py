"""Models on torch and transformers; nothing here knows LlamaIndex."""
