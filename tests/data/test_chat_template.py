"""A chat template writes what transformers writes, or is stopped: by the sandbox, by the clock, by size."""

import time

import pytest
from jinja2 import TemplateError, UndefinedError

from tunesmith.data.example import Message
from tunesmith.data.rendering import chat_template as bounds
from tunesmith.data.rendering.chat_template import TooMuch, chat_template
from tunesmith.data.rendering.render import Renderer
from tunesmith.errors import DataError
from tunesmith.run import Data

TURNS = [
    {"role": "system", "content": " be brief\n"},
    {"role": "user", "content": "电影 {{ 1 }} <b>&amp;</b>"},
    {"role": "assistant", "content": "three"},
]
GIVEN = {"messages": TURNS, "tools": None, "documents": None, "add_generation_prompt": True, "eos_token": "</s>"}


@pytest.fixture
def hurried(monkeypatch):
    """A tenth of a second."""
    monkeypatch.setattr(bounds, "SECONDS", 0.1)


TEMPLATES = [
    "{% for m in messages %}{{ m.role ~ ': ' ~ m['content'] | trim + eos_token }}\n{% endfor %}",
    "{%- set ns = namespace(n=0, said='') -%}\n  {%- for m in messages if m.role != 'system' %}"
    "{%- set ns.n = ns.n + 2 * loop.index %}{%- set ns.said = ns.said ~ m.content[:3] %}{% endfor %}"
    "{{ ns.n }}{{ ns.said }}",
    "{% macro turn(m, last=false) %}[{{ m.role | upper }}{% if last %}!{% endif %}]"
    "{{ caller() if caller }}{% endmacro %}"
    "{% for m in messages %}{% call turn(m, last=loop.last) %}{{ m.content | length }}{% endcall %}{% endfor %}",
    "{{ messages | tojson(indent=2) }}{{ messages | map(attribute='role') | join(', ') }}{{ '%5.1f|%s' % (1.5, 'x') }}",
    "{% set head %}{{ messages[0].content.strip() }}{% endset %}{{ head.replace('b', 'c').split(' ')[1:] }}"
    "{{ nothing }}"
    "{{ '{:>4}'.format(7) }}{{ '=' * 12 }}{{ 2 ** 10 }}{{ range(3) | list }}{{ none }}{{ [1, 'a', {'b': 2}] }}",
    "{% for m in messages %}{% if loop.first %}{% continue %}{% endif %}{{ m.content | indent(2) }}"
    "{% break %}{% endfor %}",
    "{% for m in messages %}{% if m.role == 'assistant' %}{% generation %}{{ m.content }}"
    "{{ eos_token }}{% endgeneration %}"
    "{% else %}{{ m.content }}\n{% endif %}{% endfor %}",
]


@pytest.mark.parametrize("source", TEMPLATES)
def test_the_text_and_the_marks_are_those_of_transformers(source):
    from transformers.utils.chat_template_utils import _compile_jinja_template, _render_with_assistant_indices

    theirs = _render_with_assistant_indices(_compile_jinja_template(source), **GIVEN)
    assert chat_template(source).render(**GIVEN) == theirs
    assert theirs[0]


ENDLESS = [
    "{% set r = range(99999) %}{% for i in r %}{% for j in r %}{% for k in r %}{% endfor %}{% endfor %}{% endfor %}",
    "{% for i in range(99999) %}{% for j in range(99999) %}{% endfor %}{% endfor %}",
    "{% macro f(n) %}{% if n %}{{ f(n - 1) }}{{ f(n - 1) }}{% endif %}{% endmacro %}{{ f(200) }}",
    "{% for i in [0] recursive %}{% set again = loop %}{% for j in range(999) %}{{ again([0]) }}"
    "{% endfor %}{% endfor %}",
    "{% for i in range(99999) %}{% for j in range(99999) %}{{ j }}{% endfor %}{% endfor %}",
    "{% for i in range(99999) %}{% set x = range(99999) | map('string') | list %}{% endfor %}",
]


@pytest.mark.parametrize("source", ENDLESS)
def test_a_template_without_end_is_stopped(source, hurried):
    began = time.thread_time()
    with pytest.raises((TooMuch, RecursionError)):
        chat_template(source).render(**GIVEN)
    assert time.thread_time() - began < 2


HUGE = [
    "{% for i in range(10**9) %}x{% endfor %}",
    "{{ 'a' * 10**9 }}",
    "{{ 10 ** (10 ** 10) }}",
    "{{ [0] * 10**9 }}",
    "{{ 'a'.ljust(10**9) }}",
    "{{ 'a' | center(10**9) }}",
    "{{ 'a' | indent(10**9, first=true) }}",
    "{{ messages | tojson(indent=10**9) }}",
    "{{ '%999999999d' % 1 }}",
    "{{ '%*d' % (999999999, 1) }}",
    "{{ '%999999999d' | format(1) }}",
    "{{ '{:999999999}'.format(1) }}",
    "{{ '{:{}}'.format(1, 999999999) }}",
    "{{ lipsum(n=100000) }}",
    "{% set s = 'a' * 90000 %}{{ s.replace('', s) }}",
    "{% set ns = namespace(s='ab') %}{% for i in range(60) %}{% set ns.s = ns.s + ns.s %}{% endfor %}{{ ns.s }}",
    "{% set ns = namespace(s='ab') %}{% for i in range(60) %}{% set ns.s = ns.s ~ ns.s %}{% endfor %}{{ ns.s }}",
    "{% set ns = namespace(s=['ab']) %}{% for i in range(60) %}{% set ns.s = [ns.s, ns.s] %}{% endfor %}{{ ns.s }}",
    "{% set ns = namespace(s=['ab']) %}{% for i in range(60) %}{% set ns.s = [ns.s, ns.s] %}{% endfor %}"
    "{{ ns.s | tojson }}",
    "{% set ns = namespace(n=7) %}{% for i in range(60) %}{% set ns.n = ns.n * ns.n %}{% endfor %}",
    "{% for i in range(60000) %}{{ 'a' * 1000 }}{% endfor %}",
    "{% set x %}{% for i in range(99999) %}" + "b" * 20_000 + "{% endfor %}{% endset %}",
]


@pytest.mark.parametrize("source", HUGE, ids=range(len(HUGE)))
def test_a_template_that_makes_too_much_is_stopped_before_it_does(source):
    import resource

    before, began = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.thread_time()
    with pytest.raises((TooMuch, OverflowError, UndefinedError)):  # range's own bound, and lipsum is not there
        chat_template(source).render(**GIVEN)
    assert time.thread_time() - began < 5
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 2_000_000  # KB


OUT = [
    "{{ ''.__class__.__mro__ }}",
    "{{ ''['__class__']['__mro__'] }}",
    "{{ messages.append(1) }}",
    "{{ messages[0].update({'role': 'x'}) }}",
    "{{ '{0.__class__.__mro__}'.format('') }}",
    "{{ raise_exception.__globals__['os'].system('true') }}",
    "{{ cycler.__init__.__globals__ }}",
    "{{ self._TemplateReference__context.environment.begin() }}",
    "{{ [''] | map(attribute='__class__') | map(attribute='__mro__') | list }}",
]


@pytest.mark.parametrize("source", OUT)
def test_a_template_does_not_get_out_of_the_sandbox(source):
    with pytest.raises(TemplateError):
        chat_template(source).render(**GIVEN)


@pytest.mark.parametrize(
    ("source", "says"),
    [
        (ENDLESS[0], "takes longer than 0.1 s for one dialogue; take the tokenizer of a model that you trust"),
        (HUGE[1], "makes more than 500,000,000 characters"),
        (OUT[0], "refuses a dialogue of user: .*unsafe"),
        ("{{ raise_exception('no user') }}", "refuses a dialogue of user: no user"),
        ("{% for %}", "refuses a dialogue of user: "),
        ("{{ 1 // 0 }}", "refuses a dialogue of user: "),
    ],
)
def test_the_renderer_says_so_in_one_sentence(source, says, tokenizer, hurried):
    from transformers import PreTrainedTokenizerFast

    hostile = PreTrainedTokenizerFast(tokenizer_object=tokenizer.backend_tokenizer, eos_token="<|im_end|>")
    hostile.chat_template = source
    with pytest.raises(DataError, match=says) as refusal:
        Renderer(hostile, Data(path="-")).prompt([Message("user", "hello")])
    assert "\n" not in str(refusal.value) and refusal.value.code == 3


def test_a_long_dialogue_is_no_attack():
    turns = [{"role": "user", "content": "word " * 1000}] * 400
    text, _ = chat_template(TEMPLATES[0]).render(**GIVEN | {"messages": turns})
    assert len(text) > 2_000_000
