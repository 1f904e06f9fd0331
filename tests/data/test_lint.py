"""Every rule finds what is planted for it and nothing else, whatever the order of the rows."""

import random
import re
from collections import Counter, defaultdict
from datetime import date

import pytest
from data.planted import DATA, clean, forgetful, item, planted, said
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from tunesmith.data.example import Example
from tunesmith.data.item import Item
from tunesmith.data.lint.base import rule
from tunesmith.data.lint.characters import Mojibake
from tunesmith.data.lint.labels import MisalignedLabels, fault
from tunesmith.data.lint.near import ALIKE, WIDE, NearDuplicate
from tunesmith.data.lint.personal import identity, numbers
from tunesmith.data.lint.report import Lint, rules, title
from tunesmith.data.reading.source import Row
from tunesmith.data.rendering.render import Renderer

RULES = sorted(rule.all())


def looked(items, renderer=None, targets="answers", chosen=None):
    """The report of some rules, all of them unless some are given."""
    lint = Lint(chosen or rules(tokens=renderer is not None), renderer, targets)
    for one in items:
        lint.look(one)
    return lint.report()


def counts(report) -> dict[str, int]:
    return {found.rule.name: found.count for found in report.found}


def rows(*examples: Example, split: str = "train") -> list[Item]:
    return [Item(Row(f"a.jsonl:{n}", {}), split, example) for n, example in enumerate(examples, 1)]


@pytest.fixture(scope="module")
def garden(tokenizer):
    """Planted items, what is to be found of them, and the renderer."""
    items, wanted = planted(tokenizer)
    return items, wanted, Renderer(forgetful(tokenizer), DATA)


def test_every_rule_fires_exactly_as_planted(garden):
    items, wanted, renderer = garden
    report = looked(items, renderer)
    assert counts(report) == wanted
    assert sorted([*wanted, "label-imbalance"]) == RULES  # which has data of its own below


def test_clean_rows_have_nothing(tokenizer):
    renderer = Renderer(tokenizer, DATA)
    assert counts(looked([item(example, renderer) for example in clean()], renderer)) == {}


@settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(data=st.data())
def test_the_order_of_rows_does_not_change_the_counts(garden, data):
    items, wanted, renderer = garden
    assert counts(looked(data.draw(st.permutations(items)), renderer)) == wanted


def test_each_finding_shows_three_rows_and_is_explained_in_both_languages(garden):
    items, _, renderer = garden
    for found in looked(items, renderer).found:
        assert 1 <= len(found.examples) == min(3, found.count)
        for origin, words in found.examples:
            assert re.fullmatch(r"rows\.jsonl:\d+", origin)
            assert words.en and words.zh
        assert found.rule.explained.en and re.search("[一-鿿]", found.rule.explained.zh)
        assert re.search("[一-鿿]", found.rule.zh) and title(found.rule).endswith(".")


def test_without_a_tokenizer_what_needs_none_is_still_found(garden):
    items, wanted, _ = garden
    need = {name for name, each in rule.all().items() if each.reads == "tokens"}
    assert need and counts(looked(items)) == {code: n for code, n in wanted.items() if code not in need}


def test_cheap_rules_leave_out_near_duplicates_alone():
    assert {each.name for each in rules()} - {each.name for each in rules(cheap=True)} == {"near-duplicate"}


@pytest.mark.parametrize(("rows_", "severity"), [(999, "error"), (1000, "warning")])
def test_an_error_in_a_row_of_a_thousand_is_told_as_a_warning(rows_, severity):
    examples = [said(f"What is {n}?", f"A number: {n}.") for n in range(rows_ - 1)]
    [found] = looked(rows(*examples, said("And this?", "")), chosen=[rule["empty-target"]()]).found
    assert (found.severity, found.count) == (severity, 1)


# --- copies -----------------------------------------------------------------------------------------------------------

pairs = st.lists(st.tuples(st.integers(0, 3), st.integers(0, 2), st.sampled_from(["train", "test"])), max_size=12)


@given(pairs)
def test_duplicates_conflicts_and_leaks_are_those_that_sets_tell(drawn):
    items = [rows(said(f"question {asked}", f"answer {given}"), split=split)[0] for asked, given, split in drawn]
    found = counts(looked(items, chosen=[rule[name]() for name in ("duplicate", "conflict", "leakage")]))
    answers = defaultdict(set)
    for asked, given_, split in drawn:
        answers[asked, split].add(given_)
    held_out = {(asked, given_) for asked, given_, split in drawn if split == "test"}
    assert found.get("duplicate", 0) == len(drawn) - len(set(drawn))
    assert found.get("conflict", 0) == sum(len(answers[asked, split]) > 1 for asked, _, split in drawn)
    assert found.get("leakage", 0) == sum(split == "train" and (a, g) in held_out for a, g, split in drawn)


def test_a_leak_is_an_error_by_the_share_of_the_held_out_rows():
    many = [said(f"Is {n} odd?", "Yes." if n % 2 else "No.") for n in range(5000)]
    leaked = rows(*many) + rows(many[0], *[said(f"Is {n} even?", "Who knows.") for n in range(49)], split="test")
    [found] = looked(leaked, chosen=[rule["leakage"]()]).found
    assert (found.severity, found.count) == ("error", 1)
    more = rows(*[said(f"Is {n} prime?", "Who knows.") for n in range(100)], split="test")
    [found] = looked(leaked + more, chosen=[rule["leakage"]()]).found
    assert (found.severity, found.count) == ("warning", 1)


def jaccard(one: str, other: str) -> float:
    one, other = ({text[n : n + WIDE] for n in range(len(text) - WIDE + 1)} for text in (one, other))
    return len(one & other) / len(one | other)


def test_near_duplicates_are_those_that_share_four_fifths_of_their_stretches():
    draw, letters = random.Random(3), "abcdefghijklmnopqrstuvwxyz电影很好看"
    seen = Counter()
    for _ in range(300):
        text = "".join(draw.choices(letters, k=draw.randint(60, 600)))
        other = list(text)
        for _ in range(draw.choice([1, 2, 3, 20])):
            other[draw.randrange(len(other))] = draw.choice(letters)
        alike = jaccard(text, "".join(other))
        if ALIKE - 0.15 < alike < ALIKE + 0.12 or alike == 1:  # an estimate may say either, or they are the same
            continue
        found = looked(rows(Example(text=text), Example(text="".join(other))), chosen=[NearDuplicate()])
        assert (counts(found).get("near-duplicate", 0) == 1) == (alike > ALIKE), (alike, text, "".join(other))
        seen[alike > ALIKE] += 1
    assert min(seen[True], seen[False]) > 50


def test_a_long_instruction_that_rows_share_does_not_make_them_alike():
    asked = "Below is a review of a film. Say of it whether the one who wrote it liked the film or not. " * 3
    own = ["a warm and funny story of two friends who meet again", "lifeless, dull, and far too long for what it tells"]
    items = [
        Item(Row(f"a:{n}", {"text": text, "label": "x"}), "train", said(asked + text, "x"))
        for n, text in enumerate(own)
    ]
    assert not looked(items, chosen=[NearDuplicate()]).found


# --- characters and numbers -------------------------------------------------------------------------------------------

WORDS = ["café", "naïve", "déjà vu", "Größe", "señor", "über", "“quoted”", "it’s", "20 °C", "MAÇÃ”", "ESPAÑA", "CAFÉ”"]
HAN = st.text(st.characters(min_codepoint=0x4E00, max_codepoint=0x9FA5), min_size=6, max_size=12)


@given(st.lists(st.sampled_from(WORDS), min_size=1, max_size=4))
def test_right_text_is_no_mojibake_and_its_bytes_in_windows_1252_are(words):
    text = " and ".join(words)
    assert not found(Mojibake(), text)
    wrong = text.encode().decode("cp1252", "replace").replace("\ufffd", "")
    plain = {"MAÇÃ”", "ESPAÑA", "CAFÉ”"}  # an é after a capital looks like one, and is left alone
    assert found(Mojibake(), wrong) or plain.issuperset(words)


@given(HAN)
def test_chinese_read_as_gbk_is_mojibake(text):
    assert not found(Mojibake(), text)
    wrong = text.encode().decode("gbk", "ignore")
    assume(wrong.encode("gbk") == text.encode()[: len(wrong.encode("gbk"))] and len(wrong) >= 6)
    assert found(Mojibake(), wrong)


def found(one, text: str) -> bool:
    return bool(looked(rows(Example(text=text)), chosen=[one]).found)


DAYS = st.dates(date(1900, 1, 1), date(2029, 1, 1))


@given(st.integers(110000, 829999), DAYS, st.integers(0, 999), st.integers(0, 16), st.integers(1, 9))
def test_an_id_number_has_the_check_digit_of_iso_7064(area, day, serial, place, off):
    digits = f"{area}{day:%Y%m%d}{serial:03d}"
    rest = 0
    for digit in digits:  # as the standard has it, digit by digit, without the table of factors
        rest = (rest + int(digit)) * 2 % 11
    check = (12 - rest) % 11
    number = digits + ("X" if check == 10 else str(check))
    assert identity(number)
    wrong = number[:place] + str((int(number[place]) + off) % 10) + number[place + 1 :]
    assert not identity(wrong)


@pytest.mark.parametrize(
    "text",
    [
        "1700000000000 ms since 1970", "ISBN 978-3-16-148410-0", "3.14159265358979", "on 2024-01-15 10:30",
        "call 555-123-4567", "1, 2, 3, 4, 5, 6, 7, 8", "192.168.100.100", "order #12345678901", "+1 800 555 0199",
        "1234567890", "(123) 456-7890", "1800 2000 3000", "12345678901234567890", "version 2.10.13.14567",
    ],
)  # fmt: skip
def test_other_numbers_are_nobodys(text):
    assert not list(numbers(text))


@pytest.mark.parametrize("text", ["me@example.com", "user@your.domain.org", "git@github.com:a/b.git", "a @ b.org"])
def test_addresses_that_stand_for_any_are_nobodys(text):
    assert not found(rule["personal-data"](), text)


@pytest.mark.parametrize(
    ("asked", "answered", "wrong"),
    [
        ("请介绍一下北京的历史和文化。", "Beijing is the capital of China and an old city.", True),
        ("请把下面的句子翻译成英文：今天天气很好。", "The weather is very nice today, is it not?", False),
        ("Say it in Chinese: good morning to you", "早上好，祝你今天一切都顺利。", False),
        (
            "写一个求和的 Python 函数，要求处理空列表。",
            "```python\ndef total(values):\n    return sum(values)\n```",
            False,
        ),
        ("今日はとても良い天気ですね。どこへ行きますか。", "今天我们去公园散步，然后去吃饭。", True),
        ("Почему небо голубое днём?", "Из-за рассеяния света в атмосфере.", False),
        (
            "请介绍一下 TensorFlow 和 PyTorch 的区别。",
            "TensorFlow 与 PyTorch 都是深度学习框架，区别在于计算图。",
            False,
        ),
    ],
)
def test_another_writing_than_the_questions_is_told(asked, answered, wrong):
    assert bool(looked(rows(said(asked, answered)), chosen=[rule["language-mix"]()]).found) == wrong


# --- labels -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("labels", "count"),
    [
        ({"good": 50, "bad": 50}, 0),
        ({"good": 50, "bad": 5}, 0),
        ({"good": 51, "bad": 5}, 1),
        ({"good": 99, "bad": 9, "odd": 3}, 2),
        ({"good": 9}, 1),
    ],
)
def test_a_label_ten_times_rarer_than_another_is_told(labels, count):
    examples = [Example(text=f"{label} {n}", label=label) for label, many in labels.items() for n in range(many)]
    assert counts(looked(rows(*examples), targets="label")).get("label-imbalance", 0) == count


def test_free_answers_are_no_labels():
    assert not looked(rows(*clean()), chosen=[rule["label-imbalance"]()]).found


def test_the_guides_own_function_is_found_wrong_and_the_one_explained_right(tokenizer):
    row = {"content": "the film is a warm and funny story of two friends", "summary": "a warm film"}

    def process(row):
        inputs = tokenizer(row["content"], padding="max_length", max_length=64)
        labels = tokenizer(row["summary"], padding="max_length", max_length=64)
        return {"input_ids": inputs["input_ids"], "labels": labels["input_ids"]}

    for language in ("en", "zh"):
        lines = [line for line in getattr(MisalignedLabels.explained, language).split("\n") if line[:4] == "    "]
        names = {"tokenizer": tokenizer}
        exec("def right(row):\n" + "\n".join(lines), names)  # noqa: S102 - the text is ours, and it must be right
        for function, wrong in ((process, True), (names["right"], False)):
            made = function(row)
            report = looked(rows(Example(tokens=(tuple(made["input_ids"]), tuple(made["labels"])))))
            assert bool(report.found) == wrong, made


@given(st.lists(st.integers(3, 9), min_size=2, max_size=20), st.data())
def test_labels_are_the_tokens_or_masked(ids, data):
    masks = data.draw(st.lists(st.booleans(), min_size=len(ids), max_size=len(ids)))
    labels = [-100 if mask else token for token, mask in zip(ids, masks, strict=True)]
    assert fault(tuple(ids), tuple(labels), pad=0) is None
    at = data.draw(st.integers(0, len(ids) - 1))
    labels[at] = 1
    assert fault(tuple(ids), tuple(labels), pad=0)
    assert fault(tuple(ids), (*ids[1:], -100), pad=0) is None or "shifted" in fault(tuple(ids), (*ids[1:], -100), 0).en
    assert "padding" in fault((*ids, 0, 0), (*ids, 0, 0), pad=0).en
