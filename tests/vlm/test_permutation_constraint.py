"""Whatever the logits, what is decoded under the constraint is a complete ranking."""

import itertools
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from support.phi3_vision_golden import GOLDEN, NO_REFERENCE, REFERENCE
from transformers import PreTrainedTokenizerFast

from llama_index_multimodal_rerank.vlm.permutation_constraint import (
    REASON,
    ListTokens,
    PermutationConstraint,
    read_list,
    tokenize_list,
)
from llama_index_multimodal_rerank.vlm.permutation_logits import (
    PermutationLogitsProcessor,
    first_label_probabilities,
)

TOKENIZER = GOLDEN / "tokenizer"
CONTEXT = "<|assistant|>\n"


def load(folder: Path) -> PreTrainedTokenizerFast:
    return PreTrainedTokenizerFast.from_pretrained(str(folder))


@pytest.fixture(
    scope="module",
    params=[
        TOKENIZER,
        pytest.param(
            REFERENCE,
            marks=pytest.mark.skipif(not REFERENCE.is_dir(), reason=NO_REFERENCE),
        ),
    ],
    ids=["golden", "published"],
)
def tokenizer(request):
    return load(request.param)


golden_tokenizer = load(TOKENIZER)
VOCABULARY = len(golden_tokenizer)
golden_tokens = {
    n: tokenize_list(golden_tokenizer, n, context=CONTEXT, ending=REASON) for n in (1, 2, 9, 12, 25)
}


def text_of(order):
    return "[" + "] > [".join(str(label + 1) for label in order) + "]"


def test_pieces_are_the_tokenizers_own(tokenizer):
    tokens = tokenize_list(tokenizer, 25, context=CONTEXT)
    constraint = PermutationConstraint(tokens)

    for order in (range(25), range(24, -1, -1), [9, 0, 10, 1, *range(11, 25), *range(2, 9)]):
        ids = tokenizer(CONTEXT + text_of(order), add_special_tokens=False)["input_ids"]
        context = tokenizer(CONTEXT, add_special_tokens=False)["input_ids"]
        assert context + constraint.write(order) == ids
        assert tokenizer.decode(constraint.write(order)).strip() == text_of(order)
        assert len(constraint.write(order)) == tokens.longest
        assert read_list(constraint, constraint.write(order)).order == tuple(order)


def test_numbers_of_two_digits_are_two_tokens(tokenizer):
    tokens = tokenize_list(tokenizer, 12, context=CONTEXT)

    assert [len(ids) for ids in tokens.labels] == [1] * 9 + [2] * 3
    one, zero = tokens.labels[0][0], tokens.labels[9][1]
    constraint = PermutationConstraint(tokens)
    state = constraint.start()
    for token in tokens.opening:
        assert constraint.allowed(state) == {token}
        state = constraint.advance(state, token)
    assert constraint.allowed(state) == {ids[0] for ids in tokens.labels}
    state = constraint.advance(state, one)
    # 1 may end here, or go on to 10, 11 or 12.
    assert constraint.allowed(state) == {tokens.separator[0]} | {tokens.labels[i][1] for i in (9, 10, 11)}
    state = constraint.advance(state, zero)
    assert constraint.allowed(state) == {tokens.separator[0]}
    for token in tokens.separator:
        state = constraint.advance(state, token)
    # 10 is gone; 1 is not.
    state = constraint.advance(state, one)
    assert constraint.allowed(state) == {tokens.separator[0]} | {tokens.labels[i][1] for i in (10, 11)}
    with pytest.raises(ValueError, match=f"token {zero} is not allowed here"):
        constraint.advance(state, zero)


def decode(tokens, logits, *, order=None, steps=None):
    """Greedy decoding of one row under the processor."""
    constraint = PermutationConstraint(tokens, order)
    processor = PermutationLogitsProcessor(constraint, prompt_length=2)
    ids = torch.tensor([[7, 7]])
    for step in range(steps or tokens.longest):
        scores = processor(ids, logits[step % len(logits)][None])
        ids = torch.cat([ids, scores.argmax(dim=-1, keepdim=True)], dim=1)
    return constraint, processor, ids[0, 2:].tolist()


@settings(max_examples=60, deadline=None)
@given(
    st.sampled_from(sorted(golden_tokens)),
    st.integers(0, 2**32 - 1),
    st.floats(0, 1),
    st.sampled_from([0, 1, 2]),
)
def test_any_logits_decode_to_a_complete_permutation(n, seed, share, poison):
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(50, VOCABULARY, generator=generator) * 30
    holes = torch.rand(50, VOCABULARY, generator=generator) < share
    logits[holes] = (-torch.inf, torch.nan, torch.inf)[poison]
    tokens = golden_tokens[n]

    constraint, _, ids = decode(tokens, logits)

    order = read_list(constraint, ids).order
    assert sorted(order) == list(range(n))
    assert golden_tokenizer.decode(ids).strip() == text_of(order) + REASON


@st.composite
def awkward_tokens(draw):
    """Labels that begin like others, and pieces that share tokens with them."""
    token = st.integers(0, 3)
    labels = draw(
        st.lists(st.lists(token, min_size=1, max_size=3).map(tuple), min_size=1, max_size=6, unique=True)
    )
    separator = draw(st.lists(st.integers(2, 5), min_size=1, max_size=2).map(tuple))
    closing = draw(st.lists(st.integers(4, 6), min_size=1, max_size=2).map(tuple))
    return ListTokens((6,), tuple(labels), separator, closing)


@settings(max_examples=150, deadline=None)
@given(awkward_tokens(), st.integers(0, 2**32 - 1))
def test_any_tokenisation_decodes_to_a_complete_permutation(tokens, seed):
    logits = torch.randn(40, 8, generator=torch.Generator().manual_seed(seed))

    constraint, _, ids = decode(tokens, logits)

    order = read_list(constraint, ids).order
    assert sorted(order) == list(range(len(tokens.labels)))
    # Where tokens can be read in two ways, the order read is one that writes exactly these tokens.
    assert constraint.write(order) == ids[: len(constraint.write(order))]


def test_every_permutation_can_be_written():
    tokens = golden_tokens[9]
    constraint = PermutationConstraint(tokens)

    for order in itertools.islice(itertools.permutations(range(9)), 0, None, 5003):
        assert read_list(constraint, constraint.write(order)).order == order


def test_step_probabilities_by_hand():
    tokens = ListTokens(opening=(5,), labels=((0,), (1,), (2,)), separator=(3,), closing=(4,))
    logits = torch.zeros(1, 6)
    logits[0, :3] = torch.tensor([0.0, 1.0, 2.0]).mul(torch.log(torch.tensor(2.0)))  # 1 : 2 : 4

    _, processor, ids = decode(tokens, logits)

    assert ids == [5, 2, 3, 1, 3, 0, 4]
    assert processor.label_probabilities(0, ids) == pytest.approx([4 / 7, 2 / 3, 1.0])


def test_first_label_probabilities_by_hand():
    # Labels "1", "2", "10": token 1, token 2, tokens 1 0; token 3 ends a label.
    tokens = ListTokens(opening=(4,), labels=((1,), (2,), (1, 0)), separator=(3, 4), closing=(3,))
    asked = []

    def next_logits(written):
        asked.append(written)
        odds = {(): [9, 3, 1, 9, 9], (1,): [1, 9, 9, 4, 9]}[written]
        return torch.log(torch.tensor(odds, dtype=torch.float64))

    # 1 or 10 : 2 is 3 : 1; after 1, end : 0 is 4 : 1.
    assert first_label_probabilities(tokens, next_logits) == pytest.approx([0.6, 0.25, 0.15])
    assert asked == [(), (1,)]


def test_after_the_list_the_model_is_free():
    tokens = golden_tokens[2]
    logits = torch.zeros(1, VOCABULARY)
    logits[0, 100] = 50.0

    constraint, processor, ids = decode(tokens, logits, steps=tokens.longest + 3)
    assert ids[tokens.longest :] == [100, 100, 100]
    assert read_list(constraint, ids).length == tokens.longest
    assert len(processor.label_probabilities(0, ids)) == 2


def test_a_given_order_is_written_whatever_the_logits():
    order = (4, 1, 8, 0, 2, 3, 7, 6, 5)
    constraint, _, ids = decode(golden_tokens[9], torch.randn(50, VOCABULARY), order=order)

    assert read_list(constraint, ids).order == order


def test_rows_of_a_batch_are_independent():
    tokens = ListTokens(opening=(5,), labels=((0,), (1,)), separator=(3,), closing=(4,))
    processor = PermutationLogitsProcessor(PermutationConstraint(tokens), prompt_length=0)
    processor(torch.empty(2, 0, dtype=torch.long), torch.zeros(2, 6))
    processor(torch.tensor([[5], [5]]), torch.zeros(2, 6))
    processor(torch.tensor([[5, 0], [5, 1]]), torch.zeros(2, 6))
    masked = processor(torch.tensor([[5, 0, 3], [5, 1, 3]]), torch.zeros(2, 6))

    assert masked.isfinite().nonzero().tolist() == [[0, 1], [1, 0]]


def test_a_cut_off_list_is_an_error():
    constraint = PermutationConstraint(golden_tokens[9])
    ids = constraint.write(range(9))[:-2]

    with pytest.raises(ValueError, match="hold no complete ranking of 9 labels"):
        read_list(constraint, ids)


def test_a_tokenizer_that_joins_labels_and_brackets_is_refused():
    from tokenizers import Tokenizer, models, pre_tokenizers

    vocabulary = {"<unk>": 0, "[1]": 1, ">": 2, "[2]": 3, CONTEXT.strip(): 4}
    words = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    words.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    joining = PreTrainedTokenizerFast(tokenizer_object=words, unk_token="<unk>")

    with pytest.raises(ValueError, match="cannot be constrained"):
        tokenize_list(joining, 2, context=CONTEXT)
