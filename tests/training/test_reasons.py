"""What a reason says, where its words look, and what is not learnt against."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from llama_index_multimodal_rerank.demo.drawing.looks import HELD_OUT
from llama_index_multimodal_rerank.demo.queries import SURFACE_WORDS, DemoQuery, describe
from training.decoder import DecoderProbe
from training.held_out_words import HeldOutWords
from training.pictures import NONE
from training.pointing import FIT_AFTER, Pointing
from training.questions import TELLING, QuestionBatch, Questions, question_batch
from training.rerank_cases import Cases, looks_of
from training.sheets import Pick
from training.tiny_phi3_vision import make_model
from training.vision import VisionProbe


def words(text: str) -> list[int]:
    """A token for each word and for the full stop."""
    vocabulary = {"phone": 1, "case": 2, "mug": 3, "leopard": 4, "stripes": 5, "with": 6, ".": 7}
    return [vocabulary.get(word, sum(map(ord, word))) for word in text.replace(".", " .").split()]


def test_words_that_lead_to_held_out_pairs_alone() -> None:
    """Held out are leopard phone cases and mugs with dots, among others, but no phone case with stripes."""
    assert ("phone case", "leopard") in HELD_OUT
    named = HeldOutWords(words, surfaces=True)
    assert named.length("phone case", "stripes") == 5  # phone case with stripes .
    barred = named.barred("phone case", "dots")
    assert (3, words("leopard")[0]) in barred
    assert (3, words("stripes")[0]) not in barred
    assert (0, words("mug")[0]) in barred
    assert (0, words("shoe")[0]) not in barred
    kinds = HeldOutWords(words, surfaces=False)
    assert kinds.length("phone case", "stripes") == 3
    assert (0, words("phone")[0]) in kinds.barred("mug", "leopard")
    assert (0, words("phone")[0]) not in kinds.barred("mug", "stripes")


@pytest.fixture(scope="module")
def asked(cases: Cases) -> tuple[Questions, QuestionBatch]:
    _, processor = make_model()
    questions = Questions(cases, processor)
    return questions, question_batch(questions, 6, 4, 1, np.random.default_rng(2))[0]


def test_a_reason_is_about_the_first_that_was_written(
    asked: tuple[Questions, QuestionBatch],
) -> None:
    questions, rankings = asked
    decode = questions.processor.tokenizer.decode
    explained = rankings.reason_at >= 0
    assert 6 < int(explained.sum()) < 18  # half of 24
    for row, case in enumerate(rankings.cases):
        said = decode(rankings.text[row][rankings.text[row] != NONE])
        if not explained[row]:
            assert said == "]<|end|>"
            assert bool(rankings.sorted[row])
            continue
        first = rankings.orders[row][0]
        kind = case.looks[first].kind
        assert said == f"]\nReason: [{first + 1}] fits best: the {kind}.<|end|>"
        at = int(rankings.reason_at[row])
        assert decode(rankings.ids[row, at : at + 2]).strip() == f"[{first + 1}"
        telling = rankings.weights[row] == TELLING
        assert decode(rankings.text[row][telling]) == f"{first + 1} {kind}."
    in_order = rankings.sorted[explained]
    assert in_order.any()
    assert not in_order.all()


def test_captions_tell_kind_and_surface(cases: Cases) -> None:
    _, processor = make_model()
    looks = looks_of(cases.asked)[:4]
    queries = [DemoQuery("image", "", look, look.kind, look.surface, None) for look in looks]
    queries.append(DemoQuery("pattern", "a mug with this", "waves", "mug", "waves", None))
    pictures = [*(Pick(cases.asked, place) for place in range(4)), Pick(cases.sources, 0)]
    captions = Questions(cases, processor).captions(pictures, queries)
    decode = processor.tokenizer.decode
    for row, query in enumerate(queries):
        whole = decode(captions.text[row][captions.text[row] != NONE])
        assert whole == f"{describe(query.picture)}.<|end|>"
        told = decode(captions.text[row][captions.weights[row] == TELLING])
        assert told == ("" if row == 4 else f" {query.kind} with {SURFACE_WORDS[query.surface][0]}.")
    assert set(captions.barred[:, 0].tolist()) == {0, 1, 2, 3}
    for row, place, token in captions.barred.tolist():
        assert captions.weights[row, place] == TELLING
        assert captions.text[row, place] != token


def test_lists_in_any_order_teach_nothing_about_ranking(
    cases: Cases, asked: tuple[Questions, QuestionBatch]
) -> None:
    questions, rankings = asked
    model, _ = make_model()
    student = DecoderProbe(model, VisionProbe(model), questions.digits)
    with torch.no_grad():
        _, hidden, cache = student.hidden_states(rankings)
        loss, _ = student._list_loss(rankings, hidden[-1])
        choices = Pointing(model.model, rankings, hidden, cache).choices()
        mixed = [
            each[::-1] if not in_order else each
            for each, in_order in zip(rankings.orders, rankings.sorted, strict=True)
        ]
        rankings.orders, kept = mixed, rankings.orders
        other, _ = student._list_loss(rankings, hidden[-1])
        assert torch.equal(loss, other)
        assert torch.equal(choices, Pointing(model.model, rankings, hidden, cache).choices())
        rankings.orders = kept


def test_reasons_look_at_the_label_that_the_list_begins_with(
    asked: tuple[Questions, QuestionBatch],
) -> None:
    """A model that already does so has nothing to learn from it."""
    questions, rankings = asked
    model, _ = make_model()
    student = DecoderProbe(model, VisionProbe(model), questions.digits)
    with torch.no_grad():
        _, hidden, cache = student.hidden_states(rankings)
        pointing = Pointing(model.model, rankings, hidden, cache)
        seen: list[tuple[int, torch.Tensor, torch.Tensor, torch.Tensor]] = []
        plain = pointing._loss
        pointing._loss = (
            lambda layer, *where, **options: (  # type: ignore[method-assign]
                seen.append((layer, *where[:3])),
                plain(layer, *where, **options),
            )[1]
        )
        relay, looks = pointing.reasons()
    assert relay > 0
    assert looks > 0
    assert [layer for layer, *_ in seen] == [1, 2, FIT_AFTER]
    prefix = len(rankings.prefix)
    _, rows, _, wanted = seen[-1]
    assert wanted.sum() == len(wanted)  # one each
    for row, targets in zip(rows.tolist(), wanted, strict=True):
        label = int(targets.nonzero()[0]) - prefix
        assert label == rankings.listed[row, rankings.orders[row][0]]


def test_sheets_that_hide_something_teach_reasons_alone(cases: Cases) -> None:
    _, processor = make_model()
    questions = Questions(cases, processor)
    plain, hiding = (
        question_batch(questions, 4, 3, 1, np.random.default_rng(3), hiding=share)[0] for share in (0.0, 1.0)
    )
    assert (plain.pixels.labels[:, :2] == NONE).sum() <= 4  # the source of a pattern has no kind, if any
    hidden = (hiding.pixels.labels[:, :2] == NONE).any(1).float().mean()
    assert 0.15 < hidden < 0.6  # 35 of 100, and sources
    assert (hiding.reason_at >= 0).all()
    assert not hiding.sorted.any()
    for case, order in zip(hiding.cases, hiding.orders, strict=True):
        assert [case.tiers[label] for label in order] == sorted(case.tiers, reverse=True)
