"""The reranker's recipe at toy length: from nothing to a folder that the package loads."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from llama_index_multimodal_rerank import build_sheet
from llama_index_multimodal_rerank.demo.drawing.looks import Look
from llama_index_multimodal_rerank.demo.queries import DemoQuery
from llama_index_multimodal_rerank.reranking.sheet import Cell
from llama_index_multimodal_rerank.vlm.phi3_vision import LocalPhi3Vision
from llama_index_multimodal_rerank.vlm.protocols import RankRequest
from training import decoder, reranker
from training.decoder import DecoderProbe
from training.pictures import NONE
from training.questions import Questions, question_batch
from training.rerank_cases import Case, Cases, best_order, tier
from training.sheets import Pick, compose
from training.tiny_phi3_vision import make_model, row_and_column
from training.vision import Shown, VisionProbe, labels_of, normalized, sheets_batch


def recipe(output: Path, drawings: Path, embedder: Path) -> None:
    options = {"products": 64, "asked": 32, "sources": 16, "distractors": 16, "lists": 4, "batch_size": 2}
    options |= {"workers": 1, "save_every": 1}
    reranker.main(
        [
            *(f"--output={output}", f"--cache={drawings}", f"--embedder={embedder}", "--device=cpu"),
            *(f"--{name.replace('_', '-')}={value}" for name, value in options.items()),
            *("--steps", "2", "2", "2", "2"),
        ]
    )


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory, drawings: Path, tiny_checkpoint: Path) -> Path:
    output = tmp_path_factory.mktemp("trained")
    recipe(output, drawings, tiny_checkpoint)
    return output


def test_result_loads_and_ranks(trained: Path, cases: Cases) -> None:
    model = LocalPhi3Vision(str(trained / "model"), device="cpu", num_crops=1)
    sheet = build_sheet([Cell(Image.new("RGB", (50, 50), "red"))] * 9, num_crops=1)
    request = RankRequest((sheet.image,), "Rank!", 9)
    ranking = model.rank_labels([request], max_new_tokens=2)[0]
    assert sorted(ranking.order) == list(range(9))
    assert sum(file.stat().st_size for file in (trained / "model").iterdir()) < 6_600_000
    weights = load_file(trained / "model" / "model.safetensors")
    assert {tensor.dtype for tensor in weights.values()} == {torch.float16}
    tower = {name for name in weights if ".img_processor." in name}
    assert tower == {name for name in tower if ".img_processor.vision_model." in name} != set()


def test_report(trained: Path) -> None:
    report = json.loads((trained / "report.json").read_text())
    assert report["arguments"]["steps"] == [2, 2, 2, 2]
    assert report["parameters"] <= 3_200_000
    assert {name: [point["step"] for point in curve] for name, curve in report["curves"].items()} == {
        name: [1, 2] for name in reranker.STAGES
    }


def test_interrupted_and_continued_is_as_uninterrupted(
    trained: Path, drawings: Path, tiny_checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    loss = decoder.DecoderProbe.loss
    steps = []

    def stop_at_the_second(self: DecoderProbe, batch: object) -> object:
        steps.append(batch)
        if len(steps) == 2:
            raise KeyboardInterrupt
        return loss(self, batch)  # type: ignore[arg-type]

    monkeypatch.setattr(decoder.DecoderProbe, "loss", stop_at_the_second)
    with pytest.raises(KeyboardInterrupt):
        recipe(tmp_path, drawings, tiny_checkpoint)
    recipe(tmp_path, drawings, tiny_checkpoint)
    assert len(steps) == 2 + 1 + 2  # the second step of the decoder once more, and the last stage
    expected, found = (load_file(folder / "model" / "model.safetensors") for folder in (trained, tmp_path))
    assert expected.keys() == found.keys()
    assert all(torch.equal(expected[key], found[key]) for key in expected)


def test_distractors_show_a_surface_or_a_kind_and_never_both(cases: Cases) -> None:
    rng = np.random.default_rng(4)
    shown = Counter[str]()
    for _ in range(30):
        case = cases.draw(rng, num_candidates=9)
        mixed = cases.with_distractors(case, rng)
        for before, after in zip(case.candidates, mixed.candidates, strict=True):
            kind, surface, colour = labels_of(after, cases)
            if before is after:
                assert kind != NONE
                assert surface != NONE
            else:
                assert (kind == NONE) != (surface == NONE)
                assert colour != NONE
            shown["same" if before is after else "thing" if kind == NONE else "nameless"] += 1
    # 40 % of 270, halved between both sorts.
    assert shown["thing"] == pytest.approx(54, abs=20)
    assert shown["nameless"] == pytest.approx(54, abs=20)


def test_places_differ_from_the_start_and_neighbours_are_alike() -> None:
    code = row_and_column(128).reshape(24, 24, 128)
    assert np.square(code).mean() == pytest.approx(0.5)
    near = np.linalg.norm(code[5, 5] - code[5, 6])
    far = np.linalg.norm(code[5, 5] - code[5, 20])
    assert 0 < near < far
    np.testing.assert_allclose(code[3, 9], code[9, 3][np.r_[64:128, 0:64]])  # rows and columns alike
    model, _ = make_model()
    places = model.model.vision_embed_tokens.tower.embeddings.position_embedding.weight[1:]
    np.testing.assert_allclose(places.detach().numpy(), 0.25 * code.reshape(576, 128), atol=1e-6)


def test_composed_sheets_are_what_the_reranker_draws(cases: Cases) -> None:
    candidates = [Pick(cases.products, index) for index in range(9)]
    query = Pick(cases.sources, 3)
    page, layout = compose(candidates, query)
    assert layout.picture_side == 63
    sheet = build_sheet(
        [Cell(Image.fromarray(pick.at(63))) for pick in candidates],
        Image.fromarray(query.at(63)),
        num_crops=1,
    )
    np.testing.assert_array_equal(page, np.asarray(sheet.image))


def test_training_sees_the_pixels_and_features_of_the_model(cases: Cases) -> None:
    model, processor = make_model()
    student = DecoderProbe(model, VisionProbe(model), range(9))
    page, _ = compose([Pick(cases.products, index) for index in range(9)], None)
    inputs = processor.image_processor(Image.fromarray(page))
    views = normalized(page[None], torch.device("cpu"))
    torch.testing.assert_close(inputs["pixel_values"][0, 1:], views, atol=1e-6, rtol=0)
    with torch.inference_mode():
        expected = model.get_image_features(inputs["pixel_values"], inputs["image_sizes"])[0]
        found = student.image_features(student.probe.patches(views))[0]
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=0)


def test_pictures_on_a_sheet_are_numbered_as_the_sheet_numbers_them(cases: Cases) -> None:
    rng = np.random.default_rng(6)
    pictured = next(case for case in iter(lambda: cases.draw(rng, num_candidates=5), None) if case.picture)
    shown = Shown(cases)
    shown.add_sheet(pictured, rng)
    shown.add_alone(pictured.candidates[0])
    pixels = shown.pixels(torch.device("cpu"))
    assert pixels.numbers.tolist() == [0, 1, 2, 3, 4, 9, NONE]
    assert pixels.of_view.tolist() == [0] * 6 + [1]
    corners = [(box.top, box.left) for box in pixels.boxes[:5]]
    assert corners == sorted(corners)  # line by line


def test_a_window_is_what_the_tower_sees_of_it_alone(cases: Cases) -> None:
    model, _ = make_model()
    probe = VisionProbe(model)
    pixels = sheets_batch(cases, 1, 0, torch.device("cpu"), np.random.default_rng(3))
    features = probe.windows(pixels)
    assert features.shape == (len(pixels.boxes), 36, 128)
    # Without any layer, a window is a part of the sheet's embeddings.
    probe.tower.encoder.layers = torch.nn.ModuleList(list(probe.tower.encoder.layers)[-1:])
    box = pixels.boxes[0]
    row, column = box.top // 14, box.left // 14
    whole = probe.patches(pixels.views)[0].view(24, 24, -1)
    if row <= 18 and column <= 18:
        torch.testing.assert_close(
            probe.windows(pixels)[0].view(6, 6, -1), whole[row : row + 6, column : column + 6]
        )


RED_MUG, RED_SHOE = Look("mug", "dots", "red"), Look("shoe", "dots", "red")
BLUE_MUG, PLAIN_MUG, OTHER = (
    Look("mug", "dots", "blue"),
    Look("mug", "plain", "red"),
    Look("shoe", "plain", "red"),
)


def test_tiers() -> None:
    mug = DemoQuery("text", "a red mug with dots", None, "mug", "dots", "red")
    looks = (RED_SHOE, BLUE_MUG, OTHER, RED_MUG, PLAIN_MUG)
    assert [tier(mug, look) for look in looks] == [1, 2, 0, 3, 1]
    orders = {
        tuple(best_order(Case(mug, None, (), looks), np.random.default_rng(seed))) for seed in range(20)
    }
    assert orders == {(3, 1, 0, 4, 2), (3, 1, 4, 0, 2)}


def test_answers_and_labels_lie_where_the_losses_look(cases: Cases) -> None:
    _, processor = make_model()
    questions = Questions(cases, processor, torch.device("cpu"))
    rankings, captions = question_batch(questions, 3, 4, 2, np.random.default_rng(0))
    assert len(rankings.cases) == len(rankings.ids) == 12
    decode = processor.tokenizer.decode
    for row, case in enumerate(rankings.cases):
        n = len(case.looks)
        ids = rankings.ids[row]
        assert decode(ids[rankings.listed[row, :n]]) == "123456789"[:n]
        assert [int(decode(i)) - 1 for i in ids[rankings.written[row, :n]]] == rankings.orders[row]
        assert decode(ids[rankings.wanted_at[row]]) == " are"
        words = decode(rankings.text[row][rankings.text[row] >= 0])
        assert words.endswith("<|end|>")
        assert words.startswith("]\nReason: [" if "Reason" in words else "]<|end|>")
    for row in range(2):
        words = decode(captions.text[row][captions.text[row] >= 0])
        assert words.endswith(".<|end|>")


def test_prompts_about_one_sheet_differ_in_their_query_alone(cases: Cases) -> None:
    rng = np.random.default_rng(0)
    groups = [cases.draw_group(rng, 9, 4) for _ in range(12)]
    for group in groups:
        for case in group:
            assert case.candidates is group[0].candidates
            assert case.picture is group[0].picture
            assert case.query.picture == group[0].query.picture
            assert not Look(case.query.kind, case.query.surface, "red").held_out
    assert any(len({case.query.text for case in group}) == 4 for group in groups)


def test_what_prompts_share_is_computed_once_and_the_same(cases: Cases) -> None:
    model, processor = make_model()
    questions = Questions(cases, processor, torch.device("cpu"))
    student = DecoderProbe(model, VisionProbe(model), questions.digits)
    asked, _ = question_batch(questions, 2, 3, 1, np.random.default_rng(2))
    with torch.inference_mode():
        patches, _, hidden, _ = student.read(asked)
        features = student.image_features(patches)
        for row in range(6):
            length = len(asked.ids[row].nonzero())  # padded with 0
            ids = torch.cat([asked.prefix, asked.ids[row, :length]])[None]
            expected = model.model(ids, image_features=[features[row // 3]]).last_hidden_state[0]
            torch.testing.assert_close(
                hidden[-1][row, :length], expected[len(asked.prefix) :], atol=2e-5, rtol=0
            )


def test_a_list_in_the_right_order_costs_least(cases: Cases) -> None:
    model, processor = make_model()
    questions = Questions(cases, processor, torch.device("cpu"))
    student = DecoderProbe(model, VisionProbe(model), questions.digits)
    asked, _ = question_batch(questions, 3, 2, 1, np.random.default_rng(1))
    hidden = torch.zeros(*asked.ids.shape, model.config.hidden_size)
    with torch.no_grad():
        model.lm_head.weight.zero_()
        model.lm_head.weight[questions.digits, range(9)] = 1.0
    level, _ = student._list_loss(asked, hidden)
    for row, case in enumerate(asked.cases):
        for label, fit in enumerate(case.tiers):
            hidden[row, :, label] = 10.0 * fit
    told, right = student._list_loss(asked, hidden)
    assert right == 1.0
    assert told < level
    misled, wrong = student._list_loss(asked, -hidden)
    assert misled > level
    assert wrong < 1.0
