# ruff: noqa: E501, RUF001 (tables of texts, with look-alikes)
"""The forms in which models answer: read in the model's order, or not at all."""

from __future__ import annotations

import json
import random
from dataclasses import replace

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from llama_index_multimodal_rerank.reranking.answer_parser import parse_answer
from llama_index_multimodal_rerank.reranking.ranking import BadAnswerError, ranking_from_answer

WHOLE = {
    # columns and wrapped lists
    "a label a line": "[4]\n[2]\n[1]\n[3]",
    "a label a line, blank lines between": "[4]\n\n[2]\n\n[1]\n\n[3]\n",
    "a number a line": "4\n2\n1\n3",
    "bullets": "- [4]\n- [2]\n- [1]\n- [3]",
    "starred bullets": "* **[4]**\n* **[2]**\n* **[1]**\n* **[3]**",
    "a joint at the end of a line": "[4] > [2] >\n[1] > [3]",
    "a joint at the beginning of a line": "[4] > [2]\n> [1] > [3]",
    "commas at the ends of lines": "[4],\n[2],\n[1],\n[3]",
    "wrapped without a joint": "[4] > [2]\n[1] > [3]",
    "declared and wrapped": "Ranking: [4] > [2] >\n[1] > [3]\nReason: [1] is blue.",
    "quoted": "> [4] > [2]\n> [1] > [3]",
    # joints
    "a tie": "[4] > [2] = [1] > [3]",
    "a tie in prose": "I would say [4] > [2] = [1] > [3], all in all.",
    "at least": "[4] ≥ [2] ≥ [1] ≥ [3]",
    "arrows": "4 -> 2 -> 1 -> 3",
    "dashes": "[4] - [2] - [1] - [3]",
    "in words": "[4], then [2], then [1] and [3]",
    "HTML": "Ranking: [4] &gt; [2] &gt; [1] &gt; [3]<br>Reason: red",
    "LaTeX": "$\\boxed{[4] \\succ [2] \\succ [1] \\succ [3]}$",
    "escaped Markdown": "\\[4\\] \\> \\[2\\] \\> \\[1\\] \\> \\[3\\]",
    "blanks after the declaration": "Ranking: [4] [2] [1] [3]",
    # labels
    "Chinese brackets": "【4】 > 【2】 > 【1】 > 【3】",
    "full width": "［４］＞［２］＞［１］＞［３］",
    "circled": "④ > ② > ① > ③",
    "words": "Image 4 > Image 2 > Image 1 > Image 3",
    "words in prose": "So it is Image 4 > Image 2 > Image 1 > Image 3 for me.",
    "with hashes": "#4 > #2 > #1 > #3",
    "decimals": "Ranking: [4.0] > [2.0] > [1.0] > [3.0]",
    "emphasis": "**[4]** > **[2]** > *[1]* > `[3]`",
    "brackets and bare numbers": "[4] > 2 > [1] > 3",
    # enumerations and tables
    "an enumeration in words": "1. Image 4\n2. Image 2: a chair\n3. Image 1\n4. Image 3",
    "an enumeration of numbers": "1. 4\n2. 2\n3. 1\n4. 3",
    "a declared enumeration": "Ranking:\n1. [4]\n2. [2]\n3. [1]\n4. [3]",
    "an enumeration on one line": "Ranking: 1. [4], 2. [2], 3. [1], 4. [3]",
    "ordinals": "1st: [4]\n2nd: [2]\n3rd: [1]\n4th: [3]",
    "ranks": "Rank 1: Image 4\nRank 2: Image 2\nRank 3: Image 1\nRank 4: Image 3",
    "a table": "| Rank | Image | Why |\n|:--|---|---|\n| 1 | 4 | red |\n| 2 | [2] | 3 legs |\n| 3 | 1 | - |\n| 4 | 3 | - |",
    "a table by candidates": "Image | Rank\n--- | ---\n1 | 3\n2 | 2\n3 | 4\n4 | 1\n",
    # JSON
    "objects": '{"ranking": [{"number": 4}, {"number": 2}, {"number": 1}, {"number": 3}]}',
    "objects in an array": '[{"image": "Image 4"}, {"image": "Image 2"}, {"image": "1"}, {"image": 3}]',
    "objects with places": json.dumps(
        {"ranking": [{"number": n, "rank": place} for n, place in ((1, 3), (2, 2), (3, 4), (4, 1))]}
    ),
    "floats": '{"ranking": [4.0, 2.0, 1.0, 3.0]}',
    "another key": '{"Rankings": [4, 2, 1, 3]}',
    "a string": '{"ranking": "4 > 2 > 1 > 3"}',
    "strings": '{"final_ranking": ["[4]", "Image 2", "#1", "3"]}',
    "arrays of one": '{"ranking": [[4], [2], [1], [3]]}',
    "wrapped": '{"result": {"answer": {"ranking": [4, 2, 1, 3]}}}',
    "a call": '<tool_call>{"name": "rank", "arguments": {"ranking": [4, 2, 1, 3]}}</tool_call>',
    "a call with its arguments as a string": json.dumps(
        {"function": {"name": "rank", "arguments": json.dumps({"ranking": [4, 2, 1, 3]})}}
    ),
    "a call in XML": "<function=rank><parameter=ranking>\n[4, 2, 1, 3]\n</parameter></function>",
    "an array over several lines": "Ranking:\n[\n  4,\n  2,\n  1,\n  3\n]",
    "the outermost of two": '{"example": {"ranking": [1, 2, 3, 4]}, "ranking": [4, 2, 1, 3]}',
    "a stray brace before it": 'In {braces: {"ranking": [4, 2, 1, 3]}',
    # a list and what is said about it
    "lines of explanation": "[4] > [2] > [1] > [3]\n\n[4]\nis red, and\n[3]\nhas 2 legs.",
    "a part of it again": "In short [4] > [2]. With all: [4] > [2] > [1] > [3].",
    "the format first": "I answer as Ranking: [best] > [last].\nRanking: [best] > [second]\nRanking: [4] > [2] > [1] > [3]",
    "a list in the reason": "Ranking: [4] > [2] > [1] > [3]\nReason: it says\nRanking: [1] > [2] > [3] > [4]",
    "a line in the reason": "[4] > [2] > [1] > [3]\n**Reason:** it says\n[1] > [2] > [3] > [4]",
    "JSON in the reason": 'Ranking: [4] > [2] > [1] > [3]\nReason: {"ranking": [1, 2, 3, 4]}',
    "the reason first": "Reason: [1] > [2] is what it says.\nRanking: [4] > [2] > [1] > [3]",
}

# What stands in these may be a list, and is none that counts.
DRAFT = "Ranking: [1] > [2] > [3] > [4]\nReason: at first sight.\n"
FINAL = "Ranking: [4] > [2] > [1] > [3]\nReason: it is red."
DRAFTS = {
    "think": f"<think>{DRAFT}</think>{FINAL}",
    "think, not opened": f"{DRAFT}</think>\n\n{FINAL}",
    "think, opened twice": f"<think>The tag <think> begins. {DRAFT}</think>{FINAL}",
    "think, closed twice": f"<think>{DRAFT}</think>{DRAFT}</think>{FINAL}",
    "thinking": f"<thinking>{DRAFT}</thinking>{FINAL}",
    "thought": f"<thought>\n{DRAFT}</thought>{FINAL}",
    "reasoning, with attributes": f'<reasoning type="draft">{DRAFT}</reasoning>{FINAL}',
    "scratchpad": f"<scratchpad>{DRAFT}</scratchpad>{FINAL}",
    "square brackets": f"[THINK]{DRAFT}[/THINK]{FINAL}",
    "triangles": f"◁think▷{DRAFT}◁/think▷{FINAL}",
    "a name space": f"<seed:think>{DRAFT}</seed:think>{FINAL}",
    "begin and end": f"<|begin_of_thought|>{DRAFT}<|end_of_thought|><|begin_of_solution|>{FINAL}<|end_of_solution|>",
    "START and END": f"<|START_THINKING|>{DRAFT}<|END_THINKING|><|START_RESPONSE|>{FINAL}<|END_RESPONSE|>",
    "channels": f"<|channel|>analysis<|message|>{DRAFT}<|end|><|start|>assistant<|channel|>final<|message|>{FINAL}<|return|>",
    "a call in a channel": f"<|channel|>analysis<|message|>{DRAFT}<|end|><|start|>assistant<|channel|>commentary to=functions.rank"
    ' <|constrain|>json<|message|>{"ranking": [4, 2, 1, 3]}<|call|>',
    "channels without their marks": f"analysis{DRAFT}assistantfinal{FINAL}",
    "another channel": f"<|channel>thought\n{DRAFT}<channel|>{FINAL}",
    "an answer element": f"{DRAFT}<answer>{FINAL}</answer>",
    "a boxed answer": f"<think>{DRAFT}</think><|begin_of_box|>[4] > [2] > [1] > [3]<|end_of_box|>",
    "a draft that is longer than an answer may be": f"<think>{DRAFT * 2000}</think>{FINAL}",
}

NOT_READ = {
    "worst first": "[3] < [1] < [2] < [4]",
    "worst first, declared": "Ranking: [3] < [1] < [2] < [4]",
    "worst first in words": "From worst to best:\n[3] > [1] > [2] > [4]",
    "worst first in prose": "In ascending order [3] > [1] > [2] > [4].",
    "worst first, declared in words": "Ranking (least relevant to most relevant): [3] > [1] > [2] > [4]",
    "two lists in prose": "By colour [4] > [2] > [1] > [3], by shape [3] > [1] > [2] > [4].",
    "halves in prose": "It is [4] > [2] and also [3] > [1].",
    "two lines": "[4] > [2] > [1] > [3]\nor rather\n[3] > [1] > [2] > [4]",
    "two columns": "[4]\n[2]\n[1]\n[3]\n\nOr\n\n[3]\n[1]\n[2]\n[4]",
    "the end of a longer list": "Both 4 and 2 > [1] > [3] here.",
    "labels in explanations": "[2]\nis a dog, and\n[1]\na cat.",
    "JSON and text": '{"ranking": [4, 2, 1, 3]}\nRanking: [3] > [1] > [2] > [4]',
    "a table of scores": "| Image | Rank |\n|---|---|\n| 1 | 9 |\n| 2 | 7 |\n| 3 | 1 |\n| 4 | 2 |",
    "a table of pictures": "| # | Text |\n|---|---|\n| 1 | a chair |\n| 2 | 3 dogs |",
    "a draft cut short": f"<thinking>{DRAFT}",
    "a channel cut short": f"<|channel|>analysis<|message|>{DRAFT}",
    "a schema": '{"type": "object", "properties": {"ranking": {"type": "array", "items": {"enum": [1, 2, 3, 4]}}}}',
    "a list in an error": '{"error": {"message": "such as\\nRanking: [4] > [2]"}}',
}


@pytest.mark.parametrize("answer", WHOLE.values(), ids=WHOLE.keys())
def test_the_models_order_is_read(answer: str) -> None:
    ranking = ranking_from_answer(answer, 4, on_bad_answer="raise")

    assert ranking.order == (3, 1, 0, 2)
    assert ranking.audit.clean


@pytest.mark.parametrize("answer", DRAFTS.values(), ids=DRAFTS.keys())
def test_drafts_are_no_answers(answer: str) -> None:
    ranking = ranking_from_answer(answer, 4, on_bad_answer="raise")

    assert ranking.order == (3, 1, 0, 2)
    if FINAL in answer:
        assert ranking.reason == "it is red."


@pytest.mark.parametrize("answer", NOT_READ.values(), ids=NOT_READ.keys())
def test_what_is_not_clear_leaves_the_retrieval_order(answer: str) -> None:
    ranking = ranking_from_answer(answer, 4)

    assert ranking.order == (0, 1, 2, 3)
    assert ranking.audit.action == "retrieval_order"
    assert not ranking.audit.clean
    with pytest.raises(BadAnswerError):
        ranking_from_answer(answer, 4, on_bad_answer="raise")


def test_a_contradiction_is_named() -> None:
    with pytest.raises(BadAnswerError, match=r": 2 lists that contradict each other\. It answered"):
        ranking_from_answer(NOT_READ["two lines"], 4, on_bad_answer="raise")


REAL = [3, 1, 2]
SAID = "[2] > [1] > [3]"


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (f'{{"ranking": [3, 1, 2], "reason": "it says\nRanking: {SAID}"}}', f"it says\nRanking: {SAID}"),
        (f'{{"ranking": [3, 1, 2], "reason": "it says\nRanking: {SAID}', f"it says\nRanking: {SAID}"),
        (f'{{"ranking": [3, 1, 2], "reason": "it says {SAID}', f"it says {SAID}"),
        ('{"ranking": [3, 1, 2], "reason": "it says \\"ranking\\": [2, 1, 3', 'it says "ranking": [2, 1, 3'),
        (
            '{"ranking": [3, 1, 2], "reason": "it says \'ranking\': [2, 1, 3], and',
            "it says 'ranking': [2, 1, 3], and",
        ),
        ('{"ranking": [3, 1, 2], "reason": "the 12" one, "ranking": [2, 1, 3], is', None),
        ('{"ranking": [3, 1, 2], "reason": "a "red" one, "ranking": [2, 1, 3], is"}', None),
        ('```json\n{"ranking": [3, 1, 2], "reason": "it says\n```\nRanking: [2] > [1] > [3]', None),
        (f'{{"reason": "it says\n{SAID}\n", "ranking": [3, 1, 2]', None),
        ("{'ranking': [3, 1, 2], 'reason': 'it's \"ranking\": [2, 1, 3]'}", None),
        (
            '{"ranking": [3, 1, 2], "reason": "</think> Ranking: [2] > [1] > [3]"}',
            "</think> Ranking: [2] > [1] > [3]",
        ),
    ],
)
def test_a_list_in_the_reason_is_not_the_answer(answer: str, reason: str | None) -> None:
    ranking = ranking_from_answer(answer, 3, on_bad_answer="raise")

    assert [label + 1 for label in ranking.order] == REAL
    if reason is not None:
        assert ranking.reason == reason


@pytest.mark.parametrize(
    "answer",
    [
        '{"reason": "the 12" one, "ranking": [2, 1, 3], x", "ranking": [3, 1, 2]}',
        "{'reason': 'it's 'ranking': [2, 1, 3]', 'ranking': [3, 1, 2]}",
        "{'reason': 'it's it, 'ranking': [2, 1, 3]', 'ranking': [3, 1, 2]}",
    ],
)
def test_where_strings_cannot_be_told_from_lists_the_right_one_counts_or_none(answer: str) -> None:
    parsed = parse_answer(answer)

    assert (parsed.entries, parsed.lists) in (((), 2), ((3, 1, 2), 1))


NESTED = {
    "braces": "{",
    "brackets": "[",
    "objects": '{"a":',
    "arrays of a ranking": '{"ranking": [' + "[" * 10,
    "rankings": '{"ranking": [1]}',
    "quotes": '"',
    "escapes": '{"\\"',
    "blanks in a label": '{"ranking": ["image' + " " * 1000,
    "blanks at a line's end": "[1] > [2]" + " " * 1000,
    "stars at a line's end": "[1] > [2]" + "*" * 1000 + "x",
    "labels": "[1] > ",
    "labels on lines": "[1]\n",
    "numbers on lines": "1\n",
    "digits": "9" * 1000,
    "declarations": "Ranking:\n1. [1]\n",
    "enumerations": "1. [1]\n",
    "dashes": "-|",
    "drafts": "<think>",
    "ends of drafts": "</think>",
    "channels": "<|channel|>final<|message|>[1]",
    "answers": "<answer>[1]",
    "fences": "```json\n[1]\n```\n",
    "tables": "| # | image |\n|---|---|\n| 1 | 1 |\n",
    "reasons": "Reason:\n",
    "chains": "x [1] > [2] ",
}


@pytest.mark.parametrize("piece", NESTED.values(), ids=NESTED.keys())
@pytest.mark.parametrize("before", ["", '{"ranking": ['])
def test_a_million_characters_are_read_and_nothing_is_raised(piece: str, before: str) -> None:
    text = before + piece * (1_000_000 // len(piece))
    assert sorted(ranking_from_answer(text, 9).order) == list(range(9))


# -- properties -------------------------------------------------------------------------------

orders = st.integers(2, 25).flatmap(lambda n: st.permutations(range(1, n + 1)))
noise = st.text(st.characters(codec="utf-8", exclude_characters="<[{◁"), max_size=40)


def _lines(labels: list[int]) -> str:
    return "\n".join(f"[{label}]" for label in labels)


def _wrapped(labels: list[int]) -> str:
    middle = len(labels) // 2
    return (
        " > ".join(f"[{each}]" for each in labels[:middle])
        + " >\n"
        + " > ".join(f"[{each}]" for each in labels[middle:])
    )


FORMS = [
    lambda labels: " > ".join(f"[{label}]" for label in labels),
    lambda labels: "Ranking: " + ", ".join(map(str, labels)),
    lambda labels: "Ranking:\n" + _lines(labels),
    _lines,
    _wrapped,
    lambda labels: "\n".join(f"{place}. [{label}] because" for place, label in enumerate(labels, start=1)),
    lambda labels: "\n".join(f"{place}) Image {label}" for place, label in enumerate(labels, start=1)),
    lambda labels: (
        "| Rank | Image |\n|---|---|\n" + "\n".join(f"| {p} | {x} |" for p, x in enumerate(labels, start=1))
    ),
    lambda labels: json.dumps({"ranking": labels, "reason": "x"}),
    lambda labels: json.dumps({"ranking": [{"number": label} for label in labels]}),
    lambda labels: f"{{'ranking': {labels}}}",
    lambda labels: (
        "<think>" + " > ".join(f"[{label}]" for label in sorted(labels)) + "</think>" + _wrapped(labels)
    ),
]


@given(orders, st.sampled_from(FORMS))
def test_a_whole_list_is_read_in_its_order(labels: list[int], form: object) -> None:
    ranking = ranking_from_answer(form(labels), len(labels), on_bad_answer="raise")  # type: ignore[operator]

    assert [label + 1 for label in ranking.order] == labels


@given(orders, noise, st.booleans())
@example([1, 2], '"ranking": [2, 1]', False)
@example([1, 2], "\nRanking: 2 > 1", False)
def test_no_reason_changes_the_order(labels: list[int], reason: str, cut: bool) -> None:
    declared = "Ranking: " + " > ".join(f"[{label}]" for label in labels)
    structured = json.dumps({"ranking": labels, "reason": reason}, ensure_ascii=False).replace("\\n", "\n")
    for answer in (f"{declared}\nReason: {reason}", structured[: -2 if cut else None]):
        ranking = ranking_from_answer(answer, len(labels), on_bad_answer="raise")
        assert [label + 1 for label in ranking.order] == labels


@given(orders, st.data())
def test_a_list_cut_short_is_a_beginning_of_it(labels: list[int], data: st.DataObject) -> None:
    """Whatever the form, what is left is in the order of the whole."""
    text = data.draw(st.sampled_from(FORMS[:-1]))(labels)
    entries = parse_answer(text[: data.draw(st.integers(0, len(text)))]).entries

    whole = [str(label) for label in labels]
    kept = [str(entry) for entry in entries]
    assert kept == whole[: len(kept)] or kept[:-1] == whole[: len(kept) - 1]


@given(orders, st.randoms(use_true_random=False))
def test_lists_that_contradict_each_other_are_a_bad_answer(labels: list[int], rng: random.Random) -> None:
    other = rng.sample(labels, len(labels))
    first, second = (" > ".join(f"[{label}]" for label in each) for each in (labels, other))
    parsed = parse_answer(f"{first}\nor\n{second}")

    expected = (tuple(labels), 1) if other == labels else ((), 2)
    assert (parsed.entries, parsed.lists) == expected
    assert replace(parsed, lists=1).kind == "line"
