"""Which part of a model's text is its answer: what it thought before is left out, linearly in its length.

Models that think aloud mark their drafts in many ways, and servers and chat templates take some of the marks
away. Read are, in upper and lower case:

- tags: ``<think>``, ``<thinking>``, ``<thought>``, ``<reasoning>``, ``<scratchpad>`` and relatives, also as
  ``[THINK]``, ``◁think▷``, ``<|begin_of_thought|>``, ``<seed:think>``, ``<|START_THINKING|>``. A closing tag
  without an opening one ends a draft that began with the text (the chat template wrote the opening tag). An
  opening tag without a closing one begins a draft that was cut short: nothing after it is an answer.
- channels: of ``<|channel|>analysis<|message|>…<|channel|>final<|message|>…`` only ``final`` is the answer
  (or, without one, the arguments of a call); also with the control tokens stripped,
  ``analysis…assistantfinal…``.
- answers: where there is an ``<answer>``, ``<final_answer>``, ``<solution>``, ``<response>`` or
  ``<|begin_of_box|>`` element, only what stands in these.
"""

from __future__ import annotations

import re

_DRAFT_NAMES = (
    "think(?:ing)?|thoughts?|thought_process|reasoning|reflection|analysis|scratch_?pad|drafts?|antthinking|"
    "(?:inner_|internal_)?monologue|chain_of_thought|cot"
)
_DRAFT_TAG = re.compile(
    rf"(?:<\|?|◁)(?P<close>/|end_of_|end_)?(?:[a-z]{{1,20}}:|begin_of_|start_)?(?:{_DRAFT_NAMES})"
    r"(?:[ \t][^<>\n]{0,200})?(?:\|?>|▷)"
    r"|\[(?P<square>/)?(?:think(?:ing)?|thought|reasoning)\]"
    r"|(?:<\|channel>|<unused94>|<ctrl94>)[ \t]*(?:thought|analysis)\b"
    r"|(?P<end><channel\|>|<unused95>|<ctrl95>)",
    re.I,
)
_ANSWER_TAG = re.compile(
    r"<\|?(?P<close>/|end_of_|end_)?(?:begin_of_|start_)?(?:final_?|final-)?(?:answer|response|solution|box)\|?>",
    re.I,
)
_CHANNEL = re.compile(r"<\|channel\|>")
_MESSAGE = "<|message|>"
_MESSAGE_END = re.compile(r"<\|(?:end|return|call|start|im_end)\|>")
_STRIPPED_CHANNELS = re.compile(r"\s*(?:assistant)?analysis", re.I)
_STRIPPED_FINAL = "assistantfinal"


def answers(text: str) -> list[str]:
    """Return the parts of a text that are the model's answer, the most narrowly marked ones first.

    Args:
        text: all that the model wrote.

    Returns:
        One or two texts; the second, with the drafts left out but without regard to answer tags, is to be
        read if there is no list in the first.
    """
    text = _without_drafts(_final_channel(text))
    marked = _marked_answers(text)
    return [text] if marked is None else [marked, text]


def written_reason(text: str) -> str | None:
    """Return the reason that a model was asked for alone, without drafts; None if there is none.

    Args:
        text: all that the model wrote.
    """
    return answers(text)[0].strip().removeprefix("Reason:").strip() or None


def _without_drafts(text: str) -> str:
    kept: list[str] = []
    start = 0
    drafting = False
    for tag in _DRAFT_TAG.finditer(text):
        if tag["close"] or tag["square"] or tag["end"]:
            if not drafting:
                kept.clear()
            drafting, start = False, tag.end()
        elif not drafting:
            kept.append(text[start : tag.start()])
            drafting = True
    if not drafting:
        kept.append(text[start:])
    return "\n".join(kept)


def _final_channel(text: str) -> str:
    if (first := _CHANNEL.search(text)) is not None:
        messages: dict[str, list[str]] = {"final": [], "call": [], "draft": []}
        for segment in _CHANNEL.split(text[first.start() :])[1:]:
            header, _, message = segment.partition(_MESSAGE)
            end = _MESSAGE_END.search(message)
            header = header.strip().lower()
            kind = "final" if header.startswith("final") else "call" if "to=" in header else "draft"
            messages[kind].append(message if end is None else message[: end.start()])
        return "\n".join(messages["final"] or messages["call"])
    if _STRIPPED_CHANNELS.match(text) and _STRIPPED_FINAL in text:
        return text.rpartition(_STRIPPED_FINAL)[2]
    return text


def _marked_answers(text: str) -> str | None:
    found: list[str] = []
    start: int | None = None
    for tag in _ANSWER_TAG.finditer(text):
        if not tag["close"]:
            start = tag.end() if start is None else start
        elif start is not None:
            found.append(text[start : tag.start()])
            start = None
    if start is not None:
        found.append(text[start:])
    return "\n".join(found) if found else None
