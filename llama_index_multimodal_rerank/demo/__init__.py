"""The offline demo: a drawn catalogue, and two tiny checkpoints trained on such drawings."""
