"""The stages that teach to look closer: what is asked, what is not learnt against, what is kept."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from llama_index_multimodal_rerank import Phi3VisionRerank, image_node
from llama_index_multimodal_rerank.demo.drawing.looks import HELD_OUT, KINDS, SURFACES
from llama_index_multimodal_rerank.demo.queries import SURFACE_WORDS, describe
from llama_index_multimodal_rerank.reranking.candidates import Candidate, QueryContent
from llama_index_multimodal_rerank.reranking.closer_look import closer_look
from llama_index_multimodal_rerank.reranking.sheet import Cell
from llama_index_multimodal_rerank.vlm.phi3_vision import LocalPhi3Vision
from training import holding, reasons
from training.closer_looks import CloserLooks, Sentences, reason_prompt
from training.decoder import DecoderProbe
from training.held_out_words import HeldOutWords
from training.holding import Held
from training.pictures import NONE
from training.questions import Questions
from training.rerank_cases import Cases
from training.tiny_phi3_vision import make_model, save
from training.vision import VisionProbe

CPU = torch.device("cpu")


def words(text: str) -> list[int]:
    """A token for each word and for the full stop."""
    return [
        sum(ord(letter) << place for place, letter in enumerate(word))
        for word in text.replace(".", " .").split()
    ]


def test_words_that_lead_to_held_out_pairs_alone() -> None:
    """Held out are leopard phone cases, among others, but no phone case with stripes, and no leopard shoe."""
    assert ("phone case", "leopard") in HELD_OUT
    assert not {("phone case", "stripes"), ("shoe", "leopard")} & HELD_OUT
    named = HeldOutWords(words)
    barred = named.barred("phone case", "dots")  # phone case with dots.
    assert (3, words("leopard")[0]) in barred
    assert (3, words("stripes")[0]) not in barred
    of_leopards = named.barred("shoe", "leopard")
    assert (0, words("phone")[0]) in of_leopards
    assert (0, words("mug")[0]) not in of_leopards


@pytest.fixture(scope="module")
def looks(cases: Cases) -> CloserLooks:
    return CloserLooks(cases, make_model()[1], CPU)


def asked_for(looks: CloserLooks, sentences: Sentences, row: int) -> str:
    decoded: str = looks.processor.tokenizer.decode(sentences.text[row][sentences.text[row] != NONE])
    return decoded


def test_the_question_is_the_one_that_is_asked_later(cases: Cases) -> None:
    """Word for word, on a sheet of the same size."""
    rng = np.random.default_rng(0)
    case = cases.draw(rng, num_candidates=1)
    reranker = Phi3VisionRerank(model="demo", explain="closer_look")._reranker()
    picture = None if case.query.picture is None else Image.new("RGB", (20, 20))
    best = Candidate(Cell(Image.new("RGB", (20, 20))))
    call = next(closer_look(QueryContent(case.query.text, picture), "a leopard.", best, reranker.options))
    (request,) = call.prompts  # type: ignore[attr-defined]
    assert request.prompt == reason_prompt(case, "a leopard.")
    assert request.images[0].size == (336, 336)


@pytest.mark.parametrize("query", [True, False])
def test_sentences_say_what_is_seen_and_no_more(looks: CloserLooks, query: bool) -> None:
    sentences = looks.reasons(60, np.random.default_rng(1), query=query)
    pixels = sentences.pixels
    assert len(pixels.views) == len(sentences.ids) == 60
    results = [index for index, number in enumerate(pixels.numbers.tolist()) if number == 0]
    assert len(results) == 60
    assert len(pixels.boxes) == (120 if query else 60)
    whole = 0
    for row, index in enumerate(results):
        kind, surface, _ = pixels.labels[index].tolist()
        said = asked_for(looks, sentences, row)
        assert said.startswith("[1] fits best: a")
        assert said.endswith(".<|end|>")
        for label, names in ((kind, KINDS), (surface, [SURFACE_WORDS[each][0] for each in SURFACES])):
            named = [name for name in names if f" {name}" in said]
            assert named == ([] if label == NONE else [names[label]])
        if NONE in (kind, surface):
            assert row not in sentences.barred[:, 0]
        else:
            whole += 1
            assert (KINDS[kind], SURFACES[surface]) not in HELD_OUT
    assert 10 < whole < 50  # the others are distractors, or hidden in part
    for row, place, token in sentences.barred.tolist():
        assert sentences.text[row, place] not in (NONE, token)


def test_a_surface_that_is_not_sure_is_left_out(looks: CloserLooks) -> None:
    """And with it, what leads to held-out surfaces."""
    named, left_out = (
        looks.reasons(20, np.random.default_rng(1), query=True, sure=lambda pixels, n=name: [n] * 20)
        for name in (True, False)
    )
    surfaces = [SURFACE_WORDS[each][0] for each in SURFACES]
    for row in range(20):
        said, less = asked_for(looks, named, row), asked_for(looks, left_out, row)
        assert " with" not in less
        assert not any(f" {surface}" in less for surface in surfaces)
        assert less == f"{said.split(' with')[0]}.<|end|>"
    for row, place, token in left_out.barred.tolist():
        assert left_out.text[row, place] not in (NONE, token)
    assert 0 < len(left_out.barred) < len(named.barred)


def test_captions_are_of_queries_and_of_results(looks: CloserLooks) -> None:
    captions = looks.captions(40, np.random.default_rng(2))
    said = [asked_for(looks, captions, row) for row in range(40)]
    assert all("fits best" not in each and each.endswith("<|end|>") for each in said)
    sources = {f"{describe(surface)}.<|end|>" for surface in SURFACES}
    assert any(each in sources for each in said[::2])
    assert not any(each in sources for each in said[1::2])


def test_what_leads_to_held_out_pairs_is_no_option(looks: CloserLooks) -> None:
    sentences = looks.reasons(30, np.random.default_rng(3), query=True)
    at = sentences.text != NONE
    logits = torch.zeros(int(at.sum()), len(looks.processor.tokenizer))
    loss, _ = sentences.loss(logits)
    options = torch.full((len(logits),), logits.shape[1], dtype=torch.float32)
    number = torch.full_like(sentences.text, -1)
    number[at] = torch.arange(len(logits))
    for row, place, _token in sentences.barred.tolist():
        options[number[row, place]] -= 1
    assert len(sentences.barred) > 0
    torch.testing.assert_close(loss, options.log().mean())


# -- what is kept -----------------------------------------------------------------------------------


def test_a_model_that_has_not_changed_has_lost_nothing_and_one_that_has_did(cases: Cases) -> None:
    torch.manual_seed(0)
    model, processor = make_model()
    questions = Questions(cases, processor, CPU)
    held = Held(model, questions.digits)
    student = DecoderProbe(model, VisionProbe(model), questions.digits)
    rng = np.random.default_rng(4)
    rankings = questions.rankings([[cases.draw(rng, num_candidates=9)]], lambda case: None, rng)
    with torch.no_grad():
        kept = held.answers(student, rankings)
        assert kept.keys() == {"labels", "words", "states", "shown"} == reasons.KEEP.keys()
        assert [float(each) for each in kept.values()] == pytest.approx([0, 0, 0, 0], abs=1e-6)
        assert float(held.patches(student.probe.patches(rankings.pixels.views), rankings.pixels.views)) == 0
        for weights in (*model.lm_head.parameters(), *student.probe.tower.parameters()):
            weights += 0.2 * torch.randn_like(weights)
        assert all(float(each) > 1e-4 for each in held.answers(student, rankings).values())


def test_a_divergence_by_hand() -> None:
    """Of a coin believed fair that was one of 3 to 1: .75 log(.75 / .5) + .25 log(.25 / .5)."""
    before = torch.tensor([[0.75, 0.25]]).log()
    assert float(holding._divergence(torch.zeros(1, 2), before)) == pytest.approx(0.130812, abs=1e-6)


# -- the recipe -------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def untrained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("untrained")
    save(*make_model(), folder)
    return folder


def recipe(output: Path, cache: Path, reranker: Path) -> None:
    options = {"products": 64, "asked": 32, "sources": 16, "distractors": 16, "batch_size": 2}
    options |= {"workers": 1, "save_every": 1}
    reasons.main(
        [
            *(f"--output={output}", f"--cache={cache}", f"--reranker={reranker}", "--device=cpu"),
            *(f"--{name.replace('_', '-')}={value}" for name, value in options.items()),
            *("--steps", *["2"] * len(reasons.STAGES)),
        ]
    )


def test_the_recipe_continues_where_it_stopped(
    untrained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe(tmp_path / "whole", tmp_path / "pictures", untrained)
    loss = reasons.Student.reasons
    steps = []

    def stop_at_the_second(self: reasons.Student, weights: object, batch: object) -> object:
        steps.append(batch)
        if len(steps) == 2:
            raise KeyboardInterrupt
        return loss(self, weights, batch)  # type: ignore[arg-type]

    monkeypatch.setattr(reasons.Student, "reasons", stop_at_the_second)
    with pytest.raises(KeyboardInterrupt):
        recipe(tmp_path / "stopped", tmp_path / "pictures", untrained)
    recipe(tmp_path / "stopped", tmp_path / "pictures", untrained)
    before, whole, stopped = (
        load_file(folder / "model.safetensors")
        for folder in (untrained, tmp_path / "whole" / "model", tmp_path / "stopped" / "model")
    )
    assert before.keys() == whole.keys() == stopped.keys()
    assert all(torch.equal(whole[key], stopped[key]) for key in whole)
    assert not all(torch.equal(whole[key], before[key]) for key in whole)
    last_but_one, last = (
        torch.load(tmp_path / "whole" / "checkpoints" / f"{stage}.pt", weights_only=True)["weights"]
        for stage in reasons.STAGES[-2:]
    )
    averaged = 0.4 * last_but_one["whole.model.lm_head.weight"] + 0.6 * last["whole.model.lm_head.weight"]
    torch.testing.assert_close(whole["lm_head.weight"].float(), averaged, rtol=1e-3, atol=1e-5)
    report = json.loads((tmp_path / "whole" / "report.json").read_text())
    assert {name: [point["step"] for point in curve] for name, curve in report["curves"].items()} == {
        name: [1, 2] for name in reasons.STAGES
    }
    model = LocalPhi3Vision(str(tmp_path / "whole" / "model"), device="cpu", dtype="float32", num_crops=1)
    picture = Image.new("RGB", (30, 30), "red")
    rerank = Phi3VisionRerank(model=model, explain="closer_look", top_n=1, max_new_tokens=3)
    (only,) = rerank.postprocess_nodes([image_node_with_score(picture)], query_str="a mug")
    assert only.node.node_id == "red"


def image_node_with_score(picture: Image.Image):  # type: ignore[no-untyped-def]
    from llama_index.core.schema import NodeWithScore

    return NodeWithScore(node=image_node(picture, id_="red"), score=1.0)
