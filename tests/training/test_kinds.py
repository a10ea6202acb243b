"""The stage that makes closer looks surer of the kind: what it learns, what it holds."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from llama_index_multimodal_rerank.demo.drawing.looks import KINDS
from training import kinds
from training.closer_looks import CloserLooks, Sentences
from training.decoder import DecoderProbe
from training.holding import Held
from training.pictures import NONE
from training.questions import Questions
from training.rerank_cases import Cases
from training.tiny_phi3_vision import make_model, save
from training.vision import VisionProbe

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def sentences(cases: Cases) -> Sentences:
    return CloserLooks(cases, make_model()[1], CPU).reasons(40, np.random.default_rng(1), query=True)


def test_kinds_are_the_words_that_name_what_is_shown(sentences: Sentences) -> None:
    tokenizer = make_model()[1].tokenizer
    results = sentences.result_labels[:, 0].tolist()
    named = [
        tokenizer.decode(text[kind]).strip()
        for text, kind in zip(sentences.text, sentences.kinds, strict=True)
    ]
    assert named == ["" if label == NONE else KINDS[label] for label in results]
    assert 20 < sum(map(bool, named)) < 40  # the others are distractors, or their outline is hidden


def test_the_loss_of_kinds_asks_for_nothing_else(sentences: Sentences) -> None:
    """All words are as likely but those that are no options, so it is the logarithm of their number."""
    places = sentences.kinds.nonzero().tolist()
    logits = torch.zeros(len(places), 1000)
    barred = sentences.barred[:, :2].tolist()
    options = torch.tensor([1000.0 - barred.count(place) for place in places])
    loss, _ = sentences.loss(logits, sentences.kinds)
    assert loss.item() == pytest.approx(options.log().mean().item(), rel=1e-5)
    assert any(place in barred for place in places)
    nothing = torch.zeros_like(sentences.kinds)
    assert sentences.loss(logits[:0], nothing)[0].item() == 0


def test_words_that_are_held(cases: Cases, sentences: Sentences) -> None:
    torch.manual_seed(0)
    model, processor = make_model()
    digits = Questions(cases, processor, CPU).digits
    held, student = Held(model, digits), DecoderProbe(model, VisionProbe(model), digits)
    at = (sentences.text != NONE) & ~sentences.kinds
    with torch.no_grad():
        assert float(held.words(student, student.read(sentences).hidden, sentences, at)) < 1e-6
        model.lm_head.weight += 0.2 * torch.randn_like(model.lm_head.weight)
        assert float(held.words(student, student.read(sentences).hidden, sentences, at)) > 1e-3


def test_the_recipe_leaves_the_tower_and_averages(tmp_path: Path) -> None:
    torch.manual_seed(0)
    save(*make_model(), tmp_path / "before")
    options = {"products": 64, "asked": 32, "sources": 16, "distractors": 16, "batch_size": 2, "steps": 2}
    options |= {"workers": 1, "save_every": 1, "output": tmp_path / "after", "cache": tmp_path / "pictures"}
    options |= {"reranker": tmp_path / "before", "device": "cpu"}
    kinds.main([f"--{name.replace('_', '-')}={value}" for name, value in options.items()])
    before, after = (
        load_file(folder / "model.safetensors") for folder in (tmp_path / "before", tmp_path / "after/model")
    )
    trained = torch.load(tmp_path / "after/checkpoints/kinds.pt", weights_only=True)["weights"]
    assert before.keys() == after.keys()
    tower = [name for name in before if ".img_processor." in name]
    assert tower
    assert all(torch.equal(before[name], after[name]) for name in tower)
    head = "lm_head.weight"
    assert not torch.equal(before[head], after[head])
    averaged = (1 - kinds.SHARE) * before[head].float() + kinds.SHARE * trained[f"whole.model.{head}"]
    torch.testing.assert_close(after[head].float(), averaged, rtol=1e-3, atol=1e-5)
