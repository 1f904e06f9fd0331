"""What is shown of a sequence is what is trained on, token by token, and nothing of it steers anything."""

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tunesmith.data.example import Message, dialogue
from tunesmith.data.rendering.render import Renderer
from tunesmith.data.view import page, sample, texts, visible
from tunesmith.run import Data

LONG = dialogue((Message("user", "one two three"), Message("assistant", "four five six 电影很好看")))


def shown(tokenizer, **options):
    data = Data(path="", **options)
    [tokens] = Renderer(tokenizer, data).render(LONG, "answers")
    [uncut] = Renderer(tokenizer, replace(data, max_length=10_000)).render(LONG, "answers")
    return tokens, uncut, sample(tokens, uncut, tokenizer)


@settings(deadline=None)
@given(text=st.text(st.characters(exclude_categories=["Cs"]), max_size=40))
def test_the_texts_of_tokens_make_the_text(tokenizer, text):
    ids = tokenizer(text, add_special_tokens=False)["input_ids"]
    assert "".join(texts(tokenizer, ids)) == tokenizer.decode(ids)


def test_nothing_is_marked_that_is_not_so(tokenizer):
    tokens, _, seen = shown(tokenizer)
    assert [piece.id for piece in seen.pieces] == tokens.ids
    assert [piece.state == "trained" for piece in seen.pieces] == tokens.learn
    assert (
        "".join(piece.text for piece in seen.pieces if piece.state == "trained") == "four five six 电影很好看<|im_end|>"
    )
    assert [piece.text for piece in seen.pieces if piece.special and piece.state == "trained"] == ["<|im_end|>"]


@pytest.mark.parametrize("truncation", ["left", "right"])
def test_what_was_cut_off_is_shown_where_it_stood(tokenizer, truncation):
    _, uncut, _ = shown(tokenizer)
    short = len(uncut.ids) - 10
    tokens, uncut, seen = shown(tokenizer, max_length=short, truncation=truncation)
    assert [piece.id for piece in seen.pieces] == uncut.ids
    kept = [piece for piece in seen.pieces if piece.state != "truncated"]
    assert [piece.id for piece in kept] == tokens.ids
    assert seen.count("truncated") == 10
    assert (seen.pieces[-1 if truncation == "right" else 0].state) == "truncated"


def test_a_page_escapes_what_stands_in_data(tokenizer):
    hostile = dialogue((Message("user", "<script>alert(1)</script>\x1b[2J"), Message("assistant", "<b>no</b>")))
    [tokens] = Renderer(tokenizer, Data(path="")).render(hostile, "answers")
    made = page([sample(tokens, tokens, tokenizer)], "<i>title</i>")
    text = made.split("</style>")[1]
    assert not any(tag in text for tag in ("<script", "<b>", "<i>", "\x1b"))
    assert made.count("<tr class=") == len(tokens.ids)


def test_what_has_no_shape_can_be_seen():
    assert visible("  a b\n") == "··a b↵"
    assert visible("   ") == "···"
    assert visible("\x1b") == "\ufffd"
