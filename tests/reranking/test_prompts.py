"""Prompts of one's own: what cannot be filled in or answered is refused when it is given."""

from __future__ import annotations

from typing import Any

import pytest
from llama_index.core.prompts import (
    BasePromptTemplate,
    ChatPromptTemplate,
    PromptTemplate,
    RichPromptTemplate,
    SelectorPromptTemplate,
)
from llama_index.core.schema import NodeWithScore, TextNode
from support.vlm_doubles import Scripted

from llama_index_multimodal_rerank import Phi3VisionRerank

GOOD = "Rank all {num_candidates} for {query_str}. {answer_format}"

BAD = {
    "no answer format": ("Rank all {num_candidates} for {query}.", r"must contain \{answer_format\}"),
    "a blank in it": ("Rank! {answer_format }", r"must contain \{answer_format\}"),
    "a variable that is none": (
        "Rank all {n} for {query_string}. {answer_format}",
        r"the variables \{n\}, \{query_string\}, which nothing stands for; there are \{query\}, ",
    ),
    "an attribute": ("{query.text} {answer_format}", r"the variables \{query\.text\}"),
    "in a chat": (
        ChatPromptTemplate.from_messages([("user", "Rank all {num_candidates}.")]),
        r"must contain \{answer_format\}",
    ),
    "in Jinja": (
        RichPromptTemplate("Rank {{ candidates }}. {{ answer_format }}"),
        r"variables \{candidates\}",
    ),
    "hidden by a function": (
        PromptTemplate(GOOD, function_mappings={"answer_format": lambda **kwargs: "As you like."}),
        r"must contain \{answer_format\}",
    ),
    "a function that fails": (
        PromptTemplate(GOOD, function_mappings={"query_str": lambda **kwargs: 1 / 0}),
        "rank_prompt cannot be formatted: ZeroDivisionError",
    ),
}


def given_in_every_way(rank_prompt: Any) -> list[Any]:
    rerank = Phi3VisionRerank(model=Scripted())
    template = PromptTemplate(rank_prompt) if isinstance(rank_prompt, str) else rank_prompt

    def assign() -> None:
        rerank.rank_prompt = rank_prompt

    return [
        lambda: Phi3VisionRerank(model=Scripted(), rank_prompt=rank_prompt),
        assign,
        lambda: rerank.update_prompts({"rank_prompt": template}),
    ]


@pytest.mark.parametrize(("prompt", "message"), BAD.values(), ids=BAD.keys())
def test_a_prompt_whose_answers_cannot_be_read(prompt: str | BasePromptTemplate, message: str) -> None:
    for give in given_in_every_way(prompt):
        with pytest.raises(ValueError, match=message):
            give()


@pytest.mark.parametrize(
    "prompt",
    [
        GOOD,
        PromptTemplate(GOOD).partial_format(answer_format="As you like."),  # ours counts
        "{answer_format}",
        'Rank {labels}. {answer_format} Such as {"ranking": [1, 2]}, {} or {0}.',
        PromptTemplate(
            "{question} {shape}", template_var_mappings={"query": "question", "answer_format": "shape"}
        ),
        PromptTemplate("{shop}: {query} {answer_format}", shop="mine"),
        PromptTemplate("{shop}: {answer_format}", function_mappings={"shop": lambda **kwargs: "mine"}),
        ChatPromptTemplate.from_messages([("system", "You rank."), ("user", GOOD)]),
        RichPromptTemplate("{% if query_caption %}{{ query_caption }}{% endif %} {{ answer_format }}"),
        SelectorPromptTemplate(PromptTemplate(GOOD)),
    ],
    ids=lambda prompt: type(prompt).__name__,
)
def test_a_prompt_that_can_be_used(prompt: str | BasePromptTemplate) -> None:
    for give in given_in_every_way(prompt):
        give()
    nodes = [NodeWithScore(node=TextNode(text=f"text {i}", id_=str(i)), score=0.5) for i in range(3)]

    class Asked(Scripted):
        def generate(self, images: Any, prompt: str, *, max_new_tokens: int) -> str:
            self.prompts.append(prompt)
            return "Ranking: [2] > [1] > [3]"

    model = Asked()
    rerank = Phi3VisionRerank(model=model, rank_prompt=prompt, num_crops=1)
    assert rerank.postprocess_nodes(nodes, query_str="any")[0].node.node_id == "1"
    assert "Ranking: [best] > [second]" in model.prompts[0]


def test_a_caption_prompt_has_no_variables() -> None:
    with pytest.raises(ValueError, match=r"caption_prompt has the variables \{query_str\}.*there are none"):
        Phi3VisionRerank(model=Scripted(), caption_prompt="Describe it for {query_str}.")
    Phi3VisionRerank(model=Scripted(), caption_prompt=PromptTemplate("Be {how}.", how="short"))


def test_nothing_is_changed_by_an_update_that_is_refused() -> None:
    rerank = Phi3VisionRerank(model=Scripted())
    before = rerank.get_prompts()
    for prompts in (
        {"rank_prompt": PromptTemplate("Rank!"), "caption_prompt": PromptTemplate("What?")},
        {"rank_prompt": PromptTemplate(GOOD), "caption_prompt": PromptTemplate("{what}")},
    ):
        with pytest.raises(ValueError, match="prompt"):
            rerank.update_prompts(prompts)
        assert rerank.get_prompts() == before


def test_what_a_prompt_holds_is_kept_when_it_is_written_down() -> None:
    prompt = PromptTemplate(
        "{shop}: {question} {answer_format}", template_var_mappings={"query": "question"}, shop="mine"
    )
    again = Phi3VisionRerank.from_json(Phi3VisionRerank(rank_prompt=prompt).to_json())
    assert again.rank_prompt.get_template() == "mine: {query} {answer_format}"


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("top_n", 0, "greater than 0"),
        ("window", 26, "less than or equal to 25"),
        ("on_bad_answer", "ignore", "'repair', 'retry'"),
        ("stride", 9, "stride must be smaller than window=9, got 9"),
        ("strategy", "first_token", "which Scripted does not give"),
    ],
)
def test_what_is_set_later_is_checked_as_well(name: str, value: Any, message: str) -> None:
    rerank = Phi3VisionRerank(model=Scripted())
    before = getattr(rerank, name)
    with pytest.raises(ValueError, match=message):
        setattr(rerank, name, value)
    assert getattr(rerank, name) == before
