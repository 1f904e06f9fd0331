"""What is learnt, how much, and what becomes of what is too long: as the options of `data` say, and counted."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tunesmith.data.batch import pack
from tunesmith.data.example import Answer, Example, Media, Message, dialogue
from tunesmith.data.rendering.render import NoTarget, Renderer, TooLong
from tunesmith.run import Data

SYSTEM, ASKED, SAID = Message("system", "be brief"), Message("user", "one?"), Message("assistant", "two")
AGAIN, LAST = Message("user", "three?"), Message("assistant", "four five six")
TURNS = (SYSTEM, ASKED, SAID, AGAIN, LAST)
STOP = "<|im_end|>"


def renderer_of(tokenizer, **options):
    return Renderer(tokenizer, Data(path="-", **options))


def learnt(renderer, tokens):
    """What is learnt, with how much it counts: a list of texts and weights."""
    found = []
    weights = tokens.weights or [float(learn) for learn in tokens.learn]
    assert [bool(weight) for weight in weights] == tokens.learn
    for at, (token, weight) in enumerate(zip(tokens.ids, weights, strict=True)):
        if weight and at and weights[at - 1] == weight:
            found[-1][0].append(token)
        elif weight:
            found.append(([token], weight))
    return [(renderer.tokenizer.decode(ids), weight) for ids, weight in found]


def test_roles_are_learnt_as_chosen(tokenizer):
    cases = {
        ("assistant",): ["two<|im_end|>", "four five six<|im_end|>"],
        ("last",): ["four five six<|im_end|>"],
        ("user",): ["one?<|im_end|>", "three?<|im_end|>"],
        ("system", "last"): ["be brief<|im_end|>", "four five six<|im_end|>"],
    }
    for train_on, expected in cases.items():
        renderer = renderer_of(tokenizer, train_on=train_on)
        [tokens] = renderer.render(dialogue(TURNS), "answers")
        assert learnt(renderer, tokens) == [(text, 1.0) for text in expected], train_on
        assert tokens.weights is None
    [whole] = renderer_of(tokenizer, train_on=("all",)).render(dialogue(TURNS), "answers")
    assert all(whole.learn) and whole.weights is None


def test_a_weight_goes_before_the_role(tokenizer):
    turns = (SYSTEM, Message("user", "one?", weight=0.5), Message("assistant", "two", weight=0), AGAIN, LAST)
    renderer = renderer_of(tokenizer)
    [tokens] = renderer.render(dialogue(turns), "answers")
    assert learnt(renderer, tokens) == [("one?" + STOP, 0.5), ("four five six" + STOP, 1.0)]
    renderer = renderer_of(tokenizer, train_on=("all",))
    [tokens] = renderer.render(dialogue(turns), "answers")
    weights = dict.fromkeys(learnt(renderer, tokens))
    assert ("one?" + STOP, 0.5) in weights
    assert "two" not in "".join(text for text, _ in weights)
    assert {weight for _, weight in weights} == {0.5, 1.0}


def test_weights_of_one_and_none_are_the_same(tokenizer):
    renderer = renderer_of(tokenizer)
    ones = [Message(turn.role, turn.content, 1.0 if turn.role == "assistant" else 0) for turn in TURNS]
    assert renderer.render(dialogue(tuple(ones)), "answers") == renderer.render(dialogue(TURNS), "answers")


@pytest.mark.parametrize(
    ("options", "turns", "says"),
    [
        ({"train_on": ("tool",)}, TURNS, "no turn of it is of tool"),
        ({}, (ASKED, Message("assistant", "two", weight=0)), "or all such turns have weight 0"),
        ({}, (ASKED, Message("assistant", "two", weight=-1)), "the weight -1; expected a number of 0 or more"),
        ({}, (ASKED, Message("assistant", "two", weight=float("nan"))), "the weight nan"),
    ],
)
def test_nothing_to_learn_is_said(tokenizer, options, turns, says):
    with pytest.raises(NoTarget, match=says):
        renderer_of(tokenizer, **options).render(dialogue(turns), "answers")


@settings(max_examples=40, deadline=None)
@given(longest=st.integers(1, 60), truncation=st.sampled_from(["right", "left", "split", "drop"]))
def test_what_a_cut_costs_is_counted(tokenizer, longest, truncation):
    renderer = renderer_of(tokenizer)
    [whole] = renderer.render(dialogue(TURNS), "answers")
    size, targets = len(whole.ids), sum(whole.learn)
    renderer.data = Data(path="-", max_length=longest, truncation=truncation)
    [made] = renderer.render_many([dialogue(TURNS)], "answers")
    if longest >= size:
        assert made == [whole]
        return
    if truncation == "drop":
        assert isinstance(made, TooLong) and (made.tokens, made.targets) == (size, targets)
        return
    kept = {"right": [whole.learn[:longest]], "left": [whole.learn[-longest:]]}.get(truncation) or [
        whole.learn[at : at + longest] for at in range(0, size, longest)
    ]
    if not any(any(learn[1:]) for learn in kept):
        assert isinstance(made, NoTarget) and "data.max_length" in str(made)
        return
    assert all(len(tokens.ids) <= longest for tokens in made)
    seen = sum(int(pack([tokens]).learn.sum()) for tokens in made)
    if truncation == "split":
        assert [tokens.learn for tokens in made] == [learn for learn in kept if any(learn[1:])]
        alone = sum(sum(learn) for learn in kept if not any(learn[1:]))  # a piece of which only the first is a target
        assert seen + sum(tokens.lost for tokens in made) + alone == targets
        return
    [tokens] = made
    assert tokens.ids == (whole.ids[:longest] if truncation == "right" else whole.ids[-longest:])
    assert tokens.cut == size - longest
    assert tokens.lost == targets - seen


def test_a_stop_token_that_is_cut_off_is_seen(tokenizer):
    [whole] = renderer_of(tokenizer).render(dialogue(TURNS), "answers")
    stop = len(whole.learn) - 1 - whole.learn[::-1].index(True)
    assert whole.unstopped == 0
    for longest, unstopped in ((stop + 1, 0), (stop, 1), (stop - 1, 1)):
        [tokens] = renderer_of(tokenizer, max_length=longest).render(dialogue(TURNS), "answers")
        assert tokens.unstopped == unstopped
    [tokens] = renderer_of(tokenizer, max_length=len(whole.ids) - 4, truncation="left").render(
        dialogue(TURNS), "answers"
    )
    assert tokens.unstopped == 0


def test_texts_are_split_or_left_out(tokenizer):
    text = Example(text="the quick brown fox jumps over the lazy dog. " * 9)
    whole = renderer_of(tokenizer).render(text, "text")[0]
    pieces = renderer_of(tokenizer, max_length=16).render(text, "text")
    assert sum(pack([piece]).learn.sum() for piece in pieces) + sum(piece.lost for piece in pieces) == sum(whole.learn)
    with pytest.raises(TooLong, match="data.truncation=drop leaves it out"):
        renderer_of(tokenizer, max_length=16, truncation="drop").render(text, "text")


@pytest.mark.parametrize("truncation", ["right", "left"])
def test_a_labelled_text_is_cut_at_its_side(tokenizer, truncation):
    text = "the quick brown fox jumps over the lazy dog"
    ids = tokenizer(text)["input_ids"]
    side = tokenizer.truncation_side
    renderer = Renderer(tokenizer, Data(path="-", max_length=5, truncation=truncation), ["a"])
    [tokens] = renderer.render(Example(text=text, label="a"), "label")
    assert tokens.ids == (ids[:5] if truncation == "right" else ids[-5:])
    assert tokens.cut == len(ids) - 5 and tokens.label == 0
    assert tokenizer.truncation_side == side
    for truncation, says in (("split", "its label is of all of it"), ("drop", "leaves it out")):
        renderer = Renderer(tokenizer, Data(path="-", max_length=5, truncation=truncation), ["a"])
        with pytest.raises(NoTarget, match=says):
            renderer.render(Example(text=text, label="a"), "label")


def test_tokens_are_taken_as_they_are(tokenizer):
    renderer = renderer_of(tokenizer)
    [tokens] = renderer.render(Example(tokens=((5, 6, 7, 8), (-100, -100, 7, 8)), origin="a:1"), "answers")
    assert (tokens.ids, tokens.learn, tokens.origin) == ([5, 6, 7, 8], [False, False, True, True], "a:1")


@pytest.mark.parametrize(
    ("tokens", "says"),
    [
        (((5, 6, 7), (-100, 7, 8)), r"labels\[1\] is 7, but the token there is 6"),
        (((5, 6, 7), (-100, 6)), "has 3 token ids and 2 labels"),
        (((5, 6, 7_000), (-100, 6, 7_000)), "has the token id 7000, but .* knows ids from 0 to 383"),
        (((5, 6), (-100, -100)), "the answer is empty"),
        (((), ()), "the answer is empty"),
    ],
)
def test_tokens_that_do_not_fit_their_labels_are_refused(tokenizer, tokens, says):
    with pytest.raises(NoTarget, match=says):
        renderer_of(tokenizer).render(Example(tokens=tokens), "answers")


def test_half_a_character_is_refused_and_its_neighbours_are_not(tokenizer):
    half = "an emoji cut in two: \ud83d"
    examples = [dialogue((ASKED, SAID)), dialogue((Message("user", half), SAID)), dialogue((ASKED, SAID))]
    first, fault, last = renderer_of(tokenizer).render_many(examples, "answers")
    assert first == last
    for targets in ("text", "label"):
        [other] = renderer_of(tokenizer).render_many([Example(text=half, label="a")], targets)
        assert str(fault) == str(other)
        assert "half of a character (U+D83D)" in str(fault)


def test_media_are_refused_whatever_is_learnt(tokenizer):
    example = Example(TURNS[:1], (Answer(TURNS[1:]),), text="a", label="b", media=Media(images=("a.png",)))
    for targets in ("answers", "text", "label"):
        with pytest.raises(NoTarget, match="holds images: media cannot be learnt from yet"):
            renderer_of(tokenizer).render(example, targets)


def test_many_at_once_are_what_they_are_one_by_one(tokenizer):
    examples = [
        dialogue(TURNS, origin="a:1"),
        dialogue((ASKED, Message("assistant", ""))),
        Example(text="no answer"),
        dialogue((Message("user", "电影"), Message("assistant", "很好看 yes"))),
        Example(tokens=((5, 6), (5, 6))),
        Example(tokens=((5, 6), (6, 5))),
        dialogue((ASKED, Message("assistant", "seven", weight=0.5))),
    ]
    for options in ({}, {"max_length": 20, "truncation": "left"}):
        many = renderer_of(tokenizer, **options).render_many(examples, "answers")
        for example, made in zip(examples, many, strict=True):
            try:
                assert renderer_of(tokenizer, **options).render(example, "answers") == made
            except NoTarget as fault:
                assert str(fault) == str(made)


def test_what_is_ranked_is_what_was_learnt(tokenizer):
    example = dialogue((ASKED, SAID))
    for options in ({}, {"max_length": 3}, {"train_on": ("user",)}, {"train_on": ("all",)}):
        renderer = renderer_of(tokenizer, **options)
        assert tokenizer.decode(renderer.answer(example, "yes")) == "yes<|im_end|>"
        assert renderer.answer(example, "two") == [*tokenizer("two")["input_ids"], tokenizer.eos_token_id]
