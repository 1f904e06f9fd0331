"""The rendered text is the tokenizer's own, to the byte, and the targets are the answers with their stop token."""

import pytest
from conftest import TEMPLATE

from tunesmith.data.example import Answer, Example, Message, dialogue
from tunesmith.data.rendering.render import NoTarget, Renderer
from tunesmith.run import Data

TURNS = (
    Message("system", "be brief"),
    Message("user", "what is one and two?"),
    Message("assistant", "three"),
    Message("user", "电影 and?  "),
    Message("assistant", " yes\n\nno "),
)


def limited(length, **more):
    return Data(path="-", max_length=length, **more)


def one(renderer, example):
    [tokens] = renderer.render(example, "answers")
    return tokens


def learnt(renderer, tokens):
    """The trained stretches of a sequence, as text."""
    from itertools import groupby

    pairs = zip(tokens.ids, tokens.learn, strict=True)
    runs = groupby(pairs, key=lambda pair: pair[1])
    return [renderer.tokenizer.decode([token for token, _ in run]) for learn, run in runs if learn]


def test_the_text_is_the_templates_to_the_byte(tokenizer):
    renderer = Renderer(tokenizer, limited(512))
    turns = [{"role": message.role, "content": message.content} for message in TURNS]
    tokens = one(renderer, dialogue(TURNS))
    expected = tokenizer.apply_chat_template(turns, tokenize=False)
    assert tokenizer.decode(tokens.ids) == expected
    assert tokens.ids == tokenizer.apply_chat_template(turns, return_dict=False)


def test_what_is_learnt_is_the_answers_and_their_stop_tokens(tokenizer):
    renderer = Renderer(tokenizer, limited(512))
    assert learnt(renderer, one(renderer, dialogue(TURNS))) == ["three<|im_end|>", " yes\n\nno <|im_end|>"]


@pytest.mark.parametrize("targets", ["pairs", "ranked", "liked"])
def test_of_answers_that_are_judged_what_was_said_before_is_the_prompt(tokenizer, targets):
    renderer = Renderer(tokenizer, limited(512))
    call = (Message("assistant", "let me see"), Message("tool", "4"), Message("assistant", "four"))
    example = Example(prompt=TURNS[:4], answers=(Answer(TURNS[4:]), Answer(call)))
    better, worse = renderer.render(example, targets)
    assert learnt(renderer, better) == [" yes\n\nno <|im_end|>"]
    assert learnt(renderer, worse) == ["let me see<|im_end|>", "four<|im_end|>"]


def test_a_turn_marked_so_is_not_learnt(tokenizer):
    renderer = Renderer(tokenizer, limited(512))
    turns = (*TURNS[:2], Message("assistant", "three", weight=0), *TURNS[3:])
    assert learnt(renderer, one(renderer, dialogue(turns))) == [" yes\n\nno <|im_end|>"]


@pytest.mark.parametrize("targets", ["pairs", "ranked", "liked"])
def test_no_turn_counts_a_little_in_answers_that_are_judged(tokenizer, targets):
    renderer = Renderer(tokenizer, limited(512))
    for weight, refused in ((0.2, True), (3, True), (1, False), (0, False), (None, False)):
        answer = Answer((Message("assistant", "let me see", weight=weight), Message("assistant", "four")))
        example = Example(prompt=TURNS[:4], answers=(answer, Answer(TURNS[4:])))
        assert not isinstance(renderer.render_many([example], "answers")[0], NoTarget)
        [made] = renderer.render_many([example], targets)
        assert refused == (isinstance(made, NoTarget) and f"gives a turn the weight {weight}" in str(made))


@pytest.mark.parametrize("train_on", [("assistant",), ("last",), ("all",)])
@pytest.mark.parametrize("content", ["yes and", "yes and ", "one"])
def test_where_a_turn_breaks_off_no_end_is_learnt(tokenizer, train_on, content):
    renderer = Renderer(tokenizer, limited(512, train_on=train_on))
    turns = (*TURNS[:-1], Message("assistant", content, ended=False))
    tokens = one(renderer, dialogue(turns))
    whole = one(renderer, dialogue((*TURNS[:-1], Message("assistant", content))))
    assert tokens.ids == whole.ids[: len(tokens.ids)] and tokens.learn == whole.learn[: len(tokens.ids)]
    assert tokenizer.decode(tokens.ids).endswith(f"assistant\n{content}") and tokens.unstopped == 1
    assert renderer.tokenizer.eos_token_id in whole.ids[len(tokens.ids) :]


def test_only_a_last_turn_can_break_off(tokenizer):
    renderer = Renderer(tokenizer, limited(512))
    for turns in (
        (*TURNS[:2], Message("assistant", "three", ended=False), *TURNS[3:]),
        (*TURNS[:-1], Message("assistant", " ", ended=False)),
    ):
        with pytest.raises(NoTarget, match="ended: false"):
            renderer.render(dialogue(turns), "answers")


def test_generation_markers_say_the_same_as_the_difference(tokenizer):
    marked = copy_of(tokenizer)
    marked.chat_template = (
        "{% for message in messages %}{{ '<|im_start|>' + message.role + '\n' }}{% if message.role == 'assistant' %}"
        "{% generation %}{{ message.content + '<|im_end|>' }}{% endgeneration %}{{ '\n' }}"
        "{% else %}{{ message.content + '<|im_end|>\n' }}{% endif %}{% endfor %}"
        "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
    )
    plain = copy_of(tokenizer)
    plain.chat_template = marked.chat_template.replace("{% generation %}", "").replace("{% endgeneration %}", "")
    assert one(Renderer(marked, limited(512)), dialogue(TURNS)) == one(Renderer(plain, limited(512)), dialogue(TURNS))


def test_the_prompt_is_where_the_answer_begins(tokenizer):
    renderer = Renderer(tokenizer, limited(512))
    prompt = renderer.prompt(TURNS[:2])
    tokens = one(renderer, dialogue(TURNS[:3]))
    assert tokens.ids[: len(prompt)] == prompt
    assert tokens.learn.index(True) == len(prompt)


def test_no_token_reaches_from_the_prompt_into_the_answer(tokenizer):
    joined = copy_of(tokenizer)
    joined.chat_template = TEMPLATE.replace("'<|im_start|>assistant\n'", "'say: th'").replace(
        "'<|im_start|>' + message.role + '\n'", "'say: th'"
    )
    renderer = Renderer(joined, limited(512))
    tokens = one(renderer, dialogue((Message("user", "one"), Message("assistant", "ree"))))
    prompt = renderer.prompt((Message("user", "one"),))
    assert tokens.ids[: len(prompt)] == prompt
    assert learnt(renderer, tokens) == ["ree<|im_end|>"]


def test_a_wholly_cut_answer_is_refused_and_a_partly_cut_one_counted(tokenizer):
    long = dialogue((Message("user", "one " * 20), Message("assistant", "two " * 20)))
    whole = one(Renderer(tokenizer, limited(512)), long)
    start = whole.learn.index(True)
    assert one(Renderer(tokenizer, limited(start + 3)), long).cut == len(whole.ids) - start - 3
    with pytest.raises(NoTarget, match="lies past data.max_length"):
        one(Renderer(tokenizer, limited(start)), long)


def test_a_template_that_leaves_out_answers_is_refused(tokenizer):
    rewriting = copy_of(tokenizer)
    rewriting.chat_template = (
        "{% for message in messages %}{% if loop.last or message.role != 'assistant' %}{{ message.content }}"
        "{% endif %}<|im_end|>{% endfor %}"
    )
    with pytest.raises(NoTarget, match="leaves out a turn"):
        one(Renderer(rewriting, limited(512)), dialogue(TURNS))


def test_a_long_text_is_split_and_nothing_of_it_lost(tokenizer):
    text = "the quick brown fox jumps over the lazy dog. " * 9
    pieces = Renderer(tokenizer, limited(16)).whole(Example(text=text))
    ids = [token for piece in pieces for token in piece.ids]
    assert ids == [*tokenizer(text)["input_ids"], tokenizer.eos_token_id]
    assert all(len(piece.ids) <= 16 for piece in pieces)


def test_an_example_of_another_kind_is_refused_by_a_sentence(tokenizer):
    renderer = Renderer(tokenizer, limited(64), ["good", "bad"])
    with pytest.raises(NoTarget, match="objective sft learns answers"):
        one(renderer, Example(text="a", label="good"))
    with pytest.raises(NoTarget, match="does not occur in the training rows"):
        renderer.labelled(Example(text="a", label="ugly"))
    with pytest.raises(NoTarget, match="objective classify needs both"):
        renderer.labelled(Example(prompt=TURNS[:2], answers=(Answer(TURNS[2:3]),)))


def test_a_tokenizer_without_a_template_gets_a_plain_one(tokenizer):
    bare = copy_of(tokenizer)
    bare.chat_template = None
    renderer = Renderer(bare, limited(512))
    assert renderer.plain
    assert learnt(renderer, one(renderer, dialogue(TURNS[1:3]))) == ["three<|im_end|>"]


def copy_of(tokenizer):
    from copy import deepcopy

    return deepcopy(tokenizer)
