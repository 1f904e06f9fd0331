"""What is written without running a template is what the template writes, whatever it does with what is said."""

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tunesmith.data.example import Message
from tunesmith.data.rendering.chat_template import chat_template
from tunesmith.data.rendering.covered import Form, Forms
from tunesmith.data.rendering.dialogue import Refused, Writer

TEMPLATES = {file.stem: file.read_text(encoding="utf-8") for file in (Path(__file__).parent / "templates").iterdir()}
EACH = "{% for m in messages %}{%- set c = m.content %}"
ASKING = {  # what is known of the texts that these look at is enough to write others
    "whether it is there": EACH + "{% if c %}{{ c }}{% else %}nothing{% endif %}{{ c or m.role }}{% endfor %}",
    "what it is": EACH + "{{ c is string }}{{ c is none }}{{ c is mapping }}{{ c is sequence }}{{ c is defined }}"
    "{{ c == none }}{{ c == 'a' }}{{ c != ' a ' }}{{ c in ['a', 'b'] }}{% endfor %}",
    "what is in it": EACH + "{{ 'a' in c }}{{ c.startswith('a') }}{{ c.endswith((' ', '\n')) }}{{ c }}{% endfor %}",
    "trimmed": EACH + "{{ c | trim }}|{{ c.strip('a') }}|{{ c.lstrip() + c.rstrip('\n') }}|{{ c | trim ~ 1 }}"
    "{% if c.strip() %}said{% endif %}{% endfor %}",
    "in pieces": EACH + "{{ c.split('</think>')[-1].lstrip('\n') }}{{ c.split('a')[0] }}{% endfor %}",
    "put together": EACH + "{% set ns = namespace(x='') %}{% set ns.x = ns.x + '[' + c + ']' ~ none ~ 3 %}"
    "{% if ns.x %}{{ ns.x }}{% endif %}{{ c | default('x') }}{{ nothing | default(c) }}{% endfor %}",
    "in a macro": "{% macro say(m, end) %}{{ m.content }}{{ end }}{% endmacro %}"
    "{% for m in messages %}{{ say(m, '!') }}{{ say(m, '') | trim }}{% endfor %}",
    "kept": EACH + "{% set block %}{{ c }}{% endset %}{{ block | trim }}{% set d = {'x': c, 'y': [c]} %}"
    "{{ d.x }}{{ d['y'][0] }}{{ d.y[-1] }}{{ (d.y + [c])[1] }}{% endfor %}",
    "chosen": "{% for m in messages | selectattr('content') %}{{ m.content }}{% endfor %}"
    "{{ (messages | map(attribute='content') | list)[0] }}{{ messages | length }}",
    "marked": EACH + "a{% generation %}{{ c }}{{ c }}b{% endgeneration %}"
    "{% generation %}{% endgeneration %}{{ c }}{% endfor %}",
}
SEEING = {  # these must be run for every dialogue
    "its length": EACH + "{{ c | length }}{% endfor %}",
    "its letters": EACH + "{{ c[0] }}{{ c[:2] }}{{ c | upper }}{% for x in c %}{{ x }},{% endfor %}{% endfor %}",
    "its size": EACH + "{{ c < 'b' }}{{ messages | map(attribute='content') | sort | first }}{% endfor %}",
    "as a value": "{{ messages | tojson }}{{ messages }}{{ [messages[0].content] | string }}",
    "as a key": EACH + "{% set d = {'a': 1, '': 2} %}{{ d[c] }}{{ d.get(c) }}{{ 'abc'[c] is defined }}"
    "{{ [1][c] is defined }}{% endfor %}",
    "as a number": EACH + "{{ c | int }}{{ 'x%sx' % c }}{{ '{}'.format(c) }}{{ c * 2 }}{{ '%s' % [c] }}{% endfor %}",
    "beside others": EACH + "{{ c == messages[0].content }}{{ c in messages[0].content }}{% endfor %}",
    "in many pieces": EACH + "{{ c.split('a')[1:] }}{{ c.split('a') | length }}{{ c.split() }}{% endfor %}",
    "joined": "{{ messages | map(attribute='content') | join('a') | length }}"
    "{{ 'x'.join([messages[0].content]) }}{{ messages[0].content.join(['a', 'b']) }}",
    "once more": EACH + "{% set x %}<{{ c }}>{% endset %}{{ x | length }}{{ x | upper }}{{ x | trim }}{% endfor %}",
    "replaced": EACH + "{{ c | replace('a', 'b') }}{{ c.replace('a', '') }}{{ 'aba'.replace(c, '') }}{% endfor %}",
    "unique": "{{ messages | map(attribute='content') | unique | list | length }}"
    "{{ messages | groupby('content') | length }}",
    "changed": EACH + "{{ loop.changed(c) }}{{ c is sameas messages[0].content }}{{ c is lower }}{% endfor %}",
    "swallowed": EACH
    + "{{ c | float }}{{ c | wordcount }}{{ c is callable }}{{ c.nothing }}{{ c._value }}{% endfor %}",
    "marked in a macro": "{% macro say(m) %}({% generation %}{{ m.content }}{% endgeneration %}{% endmacro %}"
    "{% for m in messages %}{{ say(m) }}{{ say(m) }}{% endfor %}",
    "refused": EACH + "{% if 'a' in c %}{{ raise_exception(c) }}{% endif %}{{ c | length }}{% endfor %}",
}
TEXTS = st.sampled_from(["", " ", "a", " a ", "b\n", "</think>", "<think>x</think>\n\nb", "abab", "ab"]) | st.text(
    max_size=5
)
ROLES = st.sampled_from(["system", "user", "assistant"])
DIALOGUE = st.lists(st.builds(Message, ROLES, TEXTS, thinking=st.none() | TEXTS), min_size=1, max_size=3)
ALL = TEMPLATES | ASKING | SEEING


@pytest.fixture(scope="module")
def writers(tokenizer):
    from transformers import PreTrainedTokenizerFast

    made = {}
    for name, source in ALL.items():
        one = PreTrainedTokenizerFast(tokenizer_object=tokenizer.backend_tokenizer, bos_token="<s>", eos_token="</s>")
        one.chat_template = source
        made[name] = Writer(one)
    return made


def run(writer, messages, answer):
    """What is written if nothing is known of the template."""
    known, writer.known = writer.known, lambda *given: None
    try:
        return writer.written(messages, answer=answer)
    finally:
        writer.known = known


@pytest.mark.parametrize("name", ALL)
@settings(max_examples=60, deadline=None)
@given(dialogues=st.lists(st.tuples(DIALOGUE, st.booleans()), min_size=1, max_size=4))
def test_a_dialogue_is_written_as_the_template_writes_it(writers, name, dialogues):
    writer = writers[name]
    for messages, answer in dialogues:
        try:
            expected = run(writer, messages, answer)
        except Refused:
            with pytest.raises(Refused):
                writer.written(messages, answer=answer)
        else:
            assert writer.written(messages, answer=answer) == expected


def test_a_template_that_passes_texts_on_is_run_for_the_first_of_a_kind_only(writers, monkeypatch):
    for name in [*TEMPLATES, *ASKING]:
        writer, runs = writers[name], []
        prompts = 2 if writer.opens else 1  # an answer that goes on from its prompt asks for that too
        template = chat_template(writer.source(()))
        monkeypatch.setattr(writer, "forms", Forms())
        original = template.run
        monkeypatch.setattr(template, "run", lambda *a, runs=runs, run=original, **k: runs.append(1) or run(*a, **k))
        for word in ("one", "two", "three"):
            writer.written([Message("user", word), Message("assistant", f"{word}!")])
        assert len(runs) == 2 * prompts, name  # covered, and to compare


def test_what_a_template_sees_is_never_kept(writers):
    for name in SEEING:
        writer = writers[name]
        for word in ("one", "two", "three"):
            try:
                writer.written([Message("user", word), Message("assistant", f"{word}!")])
            except Refused:
                continue
        assert not any(isinstance(form, Form) for form in leaves(writer.forms.known)), name


def leaves(ways):
    for found in ways.values():
        yield from leaves(found.ways) if hasattr(found, "ways") else [found]


def test_the_date_is_asked_for_every_time(writers, monkeypatch):
    source = "{{ strftime_now('%Y') }}{{ messages[0].content }}"
    template, forms = chat_template(source), Forms()
    texts = ["said"]

    def written():
        def run(texts):
            return template.run(covering=not isinstance(texts[0], str), messages=[{"content": texts[0]}])

        return forms.written("user", texts, run)

    assert written() is None and written() is None
