"""``python -m llama_index_multimodal_rerank.app``: the command line; without a command, the page."""

from .command_line.main import run

if __name__ == "__main__":
    run()
