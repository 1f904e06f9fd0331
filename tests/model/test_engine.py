"""What the engine says is what transformers' own generate and forward say."""

import pytest
import torch

from tunesmith.model.engine import Engine

PROMPTS = [[5, 6, 7, 8, 9, 40], [5, 6, 7, 50], [5, 6, 7, 8, 60, 61, 62, 63], [5, 6, 7, 8, 9, 40, 41]]
OPTIONS = [[[30, 31, 1], [32, 1]]] * 4


@pytest.fixture
def sharp(tiny):
    """The tiny model with larger weights, so that its choices are not all but equal."""
    model = tiny().eval()
    with torch.no_grad():
        for weight in model.parameters():
            weight.mul_(4)
    return model


def texts(model, tokenizer, prompts, **settings):
    """The same by transformers' generate, one prompt at a time."""
    said = []
    for prompt in prompts:
        ids = model.generate(torch.tensor([prompt]), max_new_tokens=6, eos_token_id=1, pad_token_id=1, **settings)[0]
        said.append(tokenizer.decode(ids[len(prompt) :], skip_special_tokens=True))
    return said


@pytest.mark.parametrize("batch_size", [1, 3])
def test_writing_in_batches_equals_generate(sharp, tokenizer, batch_size):
    written = Engine(sharp, tokenizer, batch_size).write(PROMPTS, 6)
    assert written == texts(sharp, tokenizer, PROMPTS, do_sample=False)


def test_streaming_equals_writing(sharp, tokenizer):
    engine = Engine(sharp, tokenizer)
    for prompt, whole in zip(PROMPTS, engine.write(PROMPTS, 6), strict=True):
        assert "".join(engine.stream(prompt, 6)) == whole


@pytest.mark.parametrize("batch_size", [1, 3])
def test_a_rank_is_the_options_log_probability(sharp, tokenizer, batch_size):
    ranks = Engine(sharp, tokenizer, batch_size).rank(PROMPTS, OPTIONS)
    for n, prompt in enumerate(PROMPTS):
        for k, option in enumerate(OPTIONS[n]):
            with torch.no_grad():
                logits = sharp(torch.tensor([prompt + option])).logits[0].log_softmax(-1)
            expected = sum(float(logits[len(prompt) + at - 1, token]) for at, token in enumerate(option))
            assert float(ranks[n, k]) == pytest.approx(expected, abs=1e-4)


def test_the_model_is_left_as_it_was(sharp, tokenizer):
    sharp.train()
    Engine(sharp, tokenizer).write(PROMPTS, 2)
    assert sharp.training


def test_who_ends_leaves_the_batch_and_what_is_said_stays_the_same(sharp, tokenizer):
    whole = {}
    Engine(sharp, tokenizer).write(PROMPTS, 6, lambda logits: whole.setdefault(len(whole), logits.argmax(-1)))
    ends = [int(whole[0][0]), int(whole[2][1])]  # the one ends at once, another a little later
    sharp.generation_config.eos_token_id = [1, *ends]
    engine, asked = Engine(sharp, tokenizer), []
    read = engine.read
    engine.read = lambda ids, place, **more: asked.append(ids.shape) or read(ids, place, **more)
    written = engine.write(PROMPTS, 6)
    alone = [
        sharp.generate(torch.tensor([one]), max_new_tokens=6, eos_token_id=[1, *ends], pad_token_id=1)[0, len(one) :]
        for one in PROMPTS
    ]
    before = [[one for one in ids if one not in ends] for ids in alone]
    assert written == [tokenizer.decode(ids, skip_special_tokens=True) for ids in before]
    lengths = [len(ids) for ids in alone]
    assert min(lengths) < max(lengths)
    goes_on = [sum(length > step for length in lengths) for step in range(1, max(lengths))]
    assert [rows for rows, width in asked if width == 1][-len(goes_on) :] == goes_on
