"""What travels through LlamaIndex."""
