"""The example of a served model runs, and prints what it promises."""

import os
import subprocess
from pathlib import Path

import pytest
from PIL import Image
from support.machine import run_script
from support.openai_server import OpenAIServer, leaves_one_out
from support.vllm_server import VLLMServer

EXAMPLES = Path(__file__).parent.parent / "examples"

# Stands for llama-index-llms-openai-like, which the tests do not need.
OPENAI_LIKE = """
from support.vllm_server import VLLMClient

class OpenAILike(VLLMClient):
    def __init__(self, model, api_base, api_key, is_chat_model, max_tokens, temperature, max_retries):
        assert is_chat_model
        super().__init__(api_base=api_base)
"""


def run(name, folder, *arguments, path=()):
    paths = [str(EXAMPLES.parent), *map(str, path), os.environ.get("PYTHONPATH", "")]
    done = subprocess.run(
        [*run_script(), str(EXAMPLES / name), *map(str, arguments)],
        cwd=folder,
        env={
            **os.environ,
            "HF_HUB_OFFLINE": "1",
            "PYTHONPATH": os.pathsep.join(paths),
            "OMP_NUM_THREADS": "1",
        },
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture
def openai_like(tmp_path):
    """A folder with llama_index.llms.openai_like in it."""
    folder = tmp_path / "fake" / "llama_index" / "llms"
    (folder / "openai_like").mkdir(parents=True)
    (folder / "openai_like" / "__init__.py").write_text(OPENAI_LIKE)
    return tmp_path / "fake"


def test_remote_vlm_repairs_and_says_so(tmp_path, openai_like):
    for name, red in (("query", 0), ("dull", 20), ("red", 240), ("middling", 130)):
        Image.new("RGB", (40, 40), (red, 90, 90)).save(tmp_path / f"{name}.png")

    with OpenAIServer(*[leaves_one_out] * 3) as server:
        output = run(
            "remote_vlm.py",
            tmp_path,
            *("query.png", "redder", "dull.png", "red.png", "middling.png"),
            *("--model", "served-model", "--api-base", server.url),
            path=(openai_like, Path(__file__).parent),
        )

    assert output.index("red.png") < output.index("middling.png") < output.index("dull.png")
    assert "one was too dull" in output
    assert "'missing': [1]" in output
    assert "'attempts': 3" in output


def test_remote_vlm_by_first_token(tmp_path, openai_like):
    for name, red in (("query", 0), ("dull", 20), ("red", 240), ("middling", 130)):
        Image.new("RGB", (40, 40), (red, 90, 90)).save(tmp_path / f"{name}.png")

    with VLLMServer() as server:
        output = run(
            "remote_vlm.py",
            tmp_path,
            *("query.png", "redder", "dull.png", "red.png", "middling.png"),
            *("--model", "served-model", "--api-base", server.url),
            *("--strategy", "first_token", "--structured-outputs"),
            path=(openai_like, Path(__file__).parent),
        )

    assert output.index("red.png") < output.index("middling.png") < output.index("dull.png")
    assert "it is the reddest of all." in output
    assert "'source': 'first_token'" in output
    assert server.requests[0]["structured_outputs"] == {"choice": ["1", "2", "3"]}


def test_a_picture_that_is_not_there_is_said_before_the_server_is_asked(tmp_path, openai_like):
    Image.new("RGB", (40, 40)).save(tmp_path / "query.png")
    with pytest.raises(AssertionError, match=r"argument candidates: no\.png: no such file"):
        run(
            "remote_vlm.py",
            tmp_path,
            *("query.png", "redder", "no.png", "--model", "served-model"),
            path=(openai_like, Path(__file__).parent),
        )
