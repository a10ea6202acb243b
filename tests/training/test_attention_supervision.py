"""Where the decoder is taught to look is measured on its own attention, at the tokens of the right cells."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from llama_index_multimodal_rerank.reranking.sheet_layout import Box
from training.attention_supervision import HEADS, attention_loss, places_of
from training.decoder import DecoderProbe
from training.questions import Questions, question_batch
from training.rerank_cases import Cases
from training.tiny_phi3_vision import make_model
from training.vision import VisionProbe, sheets_batch


@pytest.mark.parametrize("layer", [0, 2])
def test_pointing_is_measured_on_the_models_own_attention(cases: Cases, layer: int) -> None:
    torch.manual_seed(0)
    model, processor = make_model()
    model.set_attn_implementation("eager")
    questions = Questions(cases, processor, torch.device("cpu"))
    student = DecoderProbe(model, VisionProbe(model), questions.digits)
    asked, _ = question_batch(questions, 1, 2, 1, np.random.default_rng(0))
    row, place = 1, 7
    with torch.inference_mode():
        patches, _, hidden, cache = student.read(asked)
        ids = torch.cat([asked.prefix, asked.ids[row]])
        features = student.image_features(patches)[:1]
        outputs = model(ids[None], image_features=features, output_attentions=True)
        shares = outputs.attentions[layer][0, :HEADS, len(asked.prefix) + place]  # (heads, tokens)
        wanted = torch.zeros(1, 1, len(ids), dtype=torch.bool)
        wanted[0, 0, [3, 50, 51]] = True
        where = torch.tensor([row]), torch.tensor([place])
        found = attention_loss(model.model, layer, hidden[layer], cache, *where, wanted)
        # Something else for each head, and some tokens that do not count.
        each = torch.zeros(1, HEADS, len(ids), dtype=torch.bool)
        each[0, range(HEADS), [3, 50, 51]] = True
        barred = torch.zeros(1, len(ids), dtype=torch.bool)
        barred[0, 60:] = True
        apart = attention_loss(model.model, layer, hidden[layer], cache, *where, each, barred)
    expected = -(shares[:, [3, 50, 51]].log().mean() + np.log(3))
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-4)
    left = shares[:, :60] / shares[:, :60].sum(-1, keepdim=True)
    expected = -torch.stack([left[0, 3], left[1, 50], left[2, 51]]).log().mean()
    torch.testing.assert_close(apart, expected, atol=1e-4, rtol=1e-4)


def test_a_cells_tokens_are_those_that_the_decoder_is_given(cases: Cases) -> None:
    model, _ = make_model()
    probe = VisionProbe(model)
    student = DecoderProbe(model, probe, range(9))
    pixels = sheets_batch(cases, 1, 1, torch.device("cpu"), np.random.default_rng(1))
    with torch.inference_mode():
        patches = probe.patches(pixels.views)
        given = student.image_features(patches)
        shown = probe.tokens_by_picture(patches, pixels)
        for view, box, own in zip(pixels.of_view.tolist(), pixels.boxes, shown, strict=True):
            torch.testing.assert_close(given[view][places_of(box)], own, atol=1e-5, rtol=1e-4)


def test_a_tokens_middle_decides_whose_it_is() -> None:
    # Tokens are 28 pixels wide, every line of 12 ends in one more; the second view begins after 156 and one.
    assert places_of(Box(0, 0, 336, 336)).size == 144
    box = Box(20, 10, 63, 43)
    across = [token for token in range(12) if box.left <= 28 * token + 14 < box.right]
    down = [token for token in range(12) if box.top <= 28 * token + 14 < box.bottom]
    expected = [157 + 13 * row + column for row in down for column in across]
    assert places_of(box).tolist() == expected
    assert len(expected) >= 1
