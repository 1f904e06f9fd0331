"""Looking words up comes to the very tokens that the tokenizer makes, or is not done."""

import pytest
from conftest import LINES
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Regex, Tokenizer, models, normalizers, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from tunesmith.data.rendering.encoder import Encoder, Job
from tunesmith.data.rendering.words import FEW

LLAMA3 = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+"
    r"|\s+(?!\S)|\s+"
)
BYTES = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
CUTTING = {
    "gpt2": pre_tokenizers.ByteLevel(add_prefix_space=False),
    "smollm": pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    ),
    "llama3": pre_tokenizers.Sequence([pre_tokenizers.Split(Regex(LLAMA3), "isolated"), BYTES]),
    "numbers in groups": pre_tokenizers.Sequence(
        [pre_tokenizers.Split(Regex(r" ?\p{L}+|\p{N}+(?: \p{N}+)*| ?[^\s\p{L}\p{N}]+|\s+"), "isolated"), BYTES]
    ),
    "with a space before": pre_tokenizers.ByteLevel(add_prefix_space=True),
    "one of several patterns": pre_tokenizers.Sequence(
        [pre_tokenizers.Punctuation(), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    ),
}
QUICK = {"gpt2", "smollm", "llama3"}


def made(cutting, normalizer=None):
    core = Tokenizer(models.BPE())
    core.pre_tokenizer, core.normalizer = CUTTING[cutting], normalizer
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    special = ["<|end|>", "<|end|>>", "<think>"]
    core.train_from_iterator(
        [*LINES, "1 000 000 or 12 000", "  two   spaces\n\n\nand lines\n", "it's I'LL 1234567"] * 3,
        trainers.BpeTrainer(vocab_size=440, special_tokens=special, initial_alphabet=alphabet),
    )
    return PreTrainedTokenizerFast(tokenizer_object=core, eos_token="<|end|>")


ENCODERS = {name: Encoder(made(name)) for name in CUTTING} | {
    "composed": Encoder(made("gpt2", normalizers.NFC())),
    "in small letters": Encoder(made("gpt2", normalizers.Lowercase())),
}
PIECES = [
    "<|end|>",
    "<|end|>>",
    "<think>",
    " the",
    "is",
    "\n",
    "\n\n",
    "  ",
    "'s",
    "'Ll",
    "42",
    "1234",
    "1 000",
    "电影",
    "é",
    "\t\r\n",
    "so many words are here that they are long,  with spaces \n and lines among them é",
]
LETTERS = st.characters(exclude_categories=("Cs",))
TEXT = st.lists(
    st.sampled_from(PIECES) | st.text(st.characters(max_codepoint=127), max_size=6) | st.text(LETTERS, max_size=4),
    max_size=8,
).map("".join)


def test_known_ways_of_cutting_are_looked_up_and_no_others():
    assert {name for name, encoder in ENCODERS.items() if encoder.words} == QUICK | {"composed", "numbers in groups"}


@pytest.mark.parametrize("name", ENCODERS)
@settings(max_examples=80, deadline=None)
@given(text=TEXT, data=st.data())
def test_tokens_and_places_are_the_tokenizers(name, text, data):
    encoder = ENCODERS[name]
    start, end = sorted(data.draw(st.tuples(st.integers(0, len(text)), st.integers(0, len(text)))))
    job = Job(text, [(start, end)], data.draw(st.sampled_from([(), (start,)])))
    slow = encoder.placed(job, encoder.plain([text])[0])
    assert encoder.encode([job, job]) == [slow, slow]
    if not job.apart:
        assert slow.ids == encoder.tokenizer(text, add_special_tokens=False)["input_ids"]
    else:
        prompt = encoder.tokenizer(text[:start], add_special_tokens=False)["input_ids"]
        assert slow.ids[: len(prompt)] == prompt


def test_long_texts_are_known_again_and_not_too_many_are_kept():
    encoder = Encoder(ENCODERS["gpt2"].tokenizer)
    texts = [f"{n} {'the two of them ' * (n % 9 + 5)}" for n in range(FEW + 9)]
    jobs = [Job(text, []) for text in (*texts, *texts[::-1])]
    assert [made.ids for made in encoder.encode(jobs)] == [ids for ids, _ in encoder.plain([job.text for job in jobs])]
    assert 0 < len(encoder.words.long) <= FEW


def test_a_pattern_that_looks_over_a_space_cuts_every_text():
    """Numbers in groups are one word here, so that no space may be taken for the end of one."""
    grouped = ENCODERS["numbers in groups"]
    assert {name: encoder.words.at_spaces for name, encoder in ENCODERS.items() if encoder.words} == {
        **dict.fromkeys(QUICK | {"composed"}, True),
        "numbers in groups": False,
    }
    assert grouped.words.cut_up("a 1 000 b") != [
        *grouped.words.cut_up("a 1"),
        *grouped.words.cut_up(" 000"),
        *grouped.words.cut_up(" b"),
    ]


def test_letters_of_many_scripts_are_looked_up():
    text = "你好，世界。これは Ünïcödé — žluťoučký “kůň” 𝔘 ½ ٣ α\u00a0β"
    assert ENCODERS["llama3"].quick(Job(text, [(0, len(text))])).ids == ENCODERS["llama3"].plain([text])[0][0]


@pytest.mark.parametrize("name", sorted(QUICK))
def test_most_of_a_dialogue_is_looked_up(name):
    encoder = ENCODERS[name]
    text = "user\nwhat is 12 + 30?<|end|>\nassistant\nIt's 42, of course.\n\n  Or so.<|end|>"
    start = text.index("It's")
    assert encoder.quick(Job(text, [(start, len(text))], [start])) is not None


def test_a_prompt_that_what_follows_would_change_is_kept_apart():
    """Two line breaks are one token at the end of a text, and two before a letter."""
    encoder = ENCODERS["gpt2"]
    text, prompt = "is\n\nis", encoder.tokenizer("is\n\n")["input_ids"]
    assert encoder.tokenizer(text)["input_ids"][: len(prompt)] != prompt
    for encoded in (encoder.encode([Job(text, [(4, 6)], [4])])[0], encoder.encode([Job(text + "é", [(4, 6)], [4])])[0]):
        assert encoded.ids[: len(prompt)] == prompt
        assert encoded.parts == [(len(prompt), len(prompt) + 1)]
