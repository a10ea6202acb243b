"""The embedder's recipe at toy length: from nothing to a folder that the package loads."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from llama_index_multimodal_rerank import ImageText, VisualizedBGEEmbedding
from llama_index_multimodal_rerank.models.visualized_bge import VisualizedBGE
from training import batches, embedder
from training.objective import other_answers
from training.vocabulary import build_tokenizer


@pytest.fixture(scope="module")
def drawings(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("drawings")


def recipe(output: Path, drawings: Path, **changes: int) -> None:
    options = {"steps": 4, "batch_size": 6, "products": 64, "sources": 16, "save_every": 2}
    options |= {"workers": 1, **changes}
    arguments = [f"--{name.replace('_', '-')}={value}" for name, value in options.items()]
    embedder.main([f"--output={output}", f"--cache={drawings}", "--device=cpu", *arguments])


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory, drawings: Path) -> Path:
    output = tmp_path_factory.mktemp("trained")
    recipe(output, drawings)
    return output


def test_result_loads_and_embeds(trained: Path) -> None:
    model = VisualizedBGEEmbedding(model_name=str(trained / "model"), device="cpu")
    picture = Image.new("RGB", (224, 224), "red")
    vectors = model.encode(["a red mug", ImageText("", picture), ImageText("a mug with this", picture)])
    assert vectors.shape == (3, 128)
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, rtol=1e-5)


def test_both_files_hold_the_same_model(trained: Path) -> None:
    folder = trained / "model"
    safetensors, pth = (
        VisualizedBGE.from_pretrained(folder / name, device="cpu", dtype="float32").fingerprint
        for name in ("model.safetensors", "Visualized_demo.pth")
    )
    assert safetensors == pth
    weights = load_file(folder / "model.safetensors")
    assert {t.dtype for key, t in weights.items() if ".rope." not in key} == {torch.float16}
    assert sum(file.stat().st_size for file in folder.iterdir()) < 6_000_000


def test_report(trained: Path) -> None:
    report = json.loads((trained / "report.json").read_text())
    assert report["arguments"] == {"steps": 4, "batch_size": 6, "seed": 0, "products": 64, "sources": 16}
    assert report["parameters"] <= 1_350_000
    assert [point["step"] for point in report["curve"]] == [2, 4]
    assert report["environment"]["packages"]["torch"] == torch.__version__.split("+")[0]


def test_interrupted_and_continued_is_as_uninterrupted(
    trained: Path, drawings: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    forward = embedder.Objective.forward
    steps = []

    def stop_at_the_fourth(self: embedder.Objective, batch: batches.Batch) -> object:
        steps.append(batch)
        if len(steps) == 4:
            raise KeyboardInterrupt
        return forward(self, batch)

    monkeypatch.setattr(embedder.Objective, "forward", stop_at_the_fourth)
    with pytest.raises(KeyboardInterrupt):
        recipe(tmp_path, drawings)
    assert not (tmp_path / "model").exists()
    recipe(tmp_path, drawings)
    assert len(steps) == 4 + 2  # continued behind the second
    expected, found = (load_file(folder / "model" / "model.safetensors") for folder in (trained, tmp_path))
    assert expected.keys() == found.keys()
    assert all(torch.equal(expected[key], found[key]) for key in expected)


def test_a_run_is_not_continued_with_other_arguments(trained: Path, drawings: Path) -> None:
    with pytest.raises(ValueError, match=r"holds a run with .*'steps': 4.*not .*'steps': 5"):
        recipe(trained, drawings, steps=5)


def test_other_answers_are_neither_right_nor_wrong() -> None:
    any_colour = batches.UNKNOWN
    wanted = torch.tensor([[0, 0, any_colour], [0, 0, 1], [0, 1, any_colour]])
    products = torch.tensor([[0, 0, 0], [0, 0, 1], [0, 1, 1]])
    expected = [[False, True, False], [False, False, False], [False, False, False]]
    assert other_answers(wanted, products).tolist() == expected


def test_augmentation_mirrors_and_brightens() -> None:
    picture = torch.arange(12, dtype=torch.uint8).view(1, 2, 2, 3)
    mirror = torch.tensor([[[-1.0, 0, 0], [0, 1, 0]]])
    result = batches.augment(picture, mirror, torch.tensor([2.0]))
    torch.testing.assert_close(result, 2.0 * picture.flip(2))
    assert batches.augment(picture + 200, mirror, torch.tensor([2.0])).max() == 255


@pytest.mark.parametrize("text", ["a ladder with Dots", "T-shirt, please!", "qwxyz 0815 ~^`\\"])
def test_tokenizer_reads_all_of_ascii(text: str) -> None:
    tokenizer = build_tokenizer()
    ids = tokenizer(text)["input_ids"]
    assert tokenizer.unk_token_id not in ids
    spaceless = tokenizer.decode(ids, skip_special_tokens=True).replace(" ", "")
    assert spaceless == text.lower().replace(" ", "")
