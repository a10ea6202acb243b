"""Makes another golden set in the format of ``tests/golden``, with other sizes, seeds, texts and pictures.

    python -m tests.support.golden_maker FOLDER [--seed 1]
    GOLDEN_DIR=FOLDER pytest

Its numbers come from this package itself. So they show nothing about the models; they show that no test has
the public set written into it. What the format fixes stays: Phi-3 Vision's tiles of 336 pixels with 24 x 24
patches, the 224 pixels of Visualized BGE and MagicLens, CLIP's tokenizer, and what is said there about the
published full-size models.
"""
