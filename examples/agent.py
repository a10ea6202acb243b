"""An agent that looks for pictures: it searches by picture and words, and goes on from what it found.

python examples/agent.py
        draws nine products and asks an agent for one; a script stands in for the language model
python examples/agent.py --llm llama_index.llms.openai:OpenAI --question "Which mug goes with leopard.png?"
        asks a language model; the class is made without arguments
"""

from __future__ import annotations

import argparse
import asyncio
import importlib
import json
from typing import Any

from _common import OUTPUT
from llama_index.core import VectorStoreIndex
from llama_index.core.agent.workflow import ReActAgent, ToolCallResult
from llama_index.core.base.llms.types import CompletionResponse, CompletionResponseGen, LLMMetadata
from llama_index.core.llms import LLM, CustomLLM

from llama_index_multimodal_rerank import (
    ImageSearchTool,
    Phi3VisionRerank,
    VisualizedBGEEmbedding,
    load_image_nodes,
)
from llama_index_multimodal_rerank.demo.catalogue import draw_query_picture
from llama_index_multimodal_rerank.demo.drawing.looks import Look

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("--llm", help="module:class of a language model of LlamaIndex")
parser.add_argument("--question", default="Which shoe goes with the mug that has the pattern of leopard.png?")


class Script(CustomLLM):
    """Stands in for a language model: makes two searches, then answers with the file that was found."""

    @property
    def metadata(self) -> LLMMetadata:
        """Of a model without function calls."""
        return LLMMetadata()

    def complete(self, prompt: str, formatted: bool = False, **kwargs: Any) -> CompletionResponse:
        """Write the next step, in the form that a ReActAgent reads."""
        read = [part.partition("\n")[0] for part in prompt.split("Observation: ")[1:] if part[0] == "{"]
        best = json.loads(read[-1])["results"][0] if read else {}
        if not read:
            call = {"text": "a mug with this", "image_path": "leopard.png"}
        elif len(read) == 1:
            call = {"text": "the same, but as a shoe", "image_id": best["id"]}
        else:
            return CompletionResponse(text=f"Thought: I have it.\nAnswer: It is {best['file']}.")
        return CompletionResponse(
            text=f"Thought: I search.\nAction: search_images\nAction Input: {json.dumps(call)}"
        )

    def stream_complete(self, prompt: str, formatted: bool = False, **kwargs: Any) -> CompletionResponseGen:
        """Write the next step at once."""
        text = self.complete(prompt).text
        yield CompletionResponse(text=text, delta=text)


def language_model(name: str | None) -> LLM:
    """Return the language model of a name, or the script."""
    if name is None:
        return Script()
    module, _, cls = name.partition(":")
    model: LLM = getattr(importlib.import_module(module), cls)()
    return model


async def main() -> None:
    """Draw, index, ask."""
    options = parser.parse_args()
    products, asked = OUTPUT / "agent" / "products", OUTPUT / "agent" / "asked"
    for folder in (products, asked):
        folder.mkdir(parents=True, exist_ok=True)
    for kind in ("mug", "shoe", "umbrella"):
        for surface in ("leopard", "dots", "plain"):
            draw_query_picture(Look(kind, surface, "red"), seed=1).save(products / f"{surface}_{kind}.png")
    draw_query_picture("leopard", seed=0).save(asked / "leopard.png")

    index = VectorStoreIndex(
        load_image_nodes(products), embed_model=VisualizedBGEEmbedding(model_name="demo")
    )
    tool = ImageSearchTool(
        index,
        node_postprocessors=[Phi3VisionRerank(model="demo", top_n=3)],
        data_root=asked,
        description="Drawings of mugs, shoes and umbrellas. The user's picture is leopard.png.",
    )
    agent = ReActAgent(tools=[tool], llm=language_model(options.llm))
    handler = agent.run(options.question)
    async for event in handler.stream_events():
        if isinstance(event, ToolCallResult):
            print(f"\nThe agent searched: {event.tool_kwargs}\nand read: {event.tool_output.content}")
    print(f"\n{options.question}\n{await handler}")


if __name__ == "__main__":
    asyncio.run(main())
