"""What each reward gives for answers whose worth is known; what it cannot score is said, and never 0 in silence."""

import json
import math
import time

import pytest

from tunesmith.config.load import load, to_yaml
from tunesmith.errors import RecipeError, Refusal
from tunesmith.rewards.base import Said, Unscored, reward
from tunesmith.rewards.exact_match import ExactMatch
from tunesmith.rewards.json_schema import JsonSchema
from tunesmith.rewards.language import Language
from tunesmith.rewards.length import Length
from tunesmith.rewards.math_equal import MathEqual, number
from tunesmith.rewards.model import RewardModel
from tunesmith.rewards.regex import Regex
from tunesmith.rewards.repetition import Repetition
from tunesmith.rollout.question import revision
from tunesmith.rollout.score import Scoring, names, refuse_rewards
from tunesmith.run import Run


def said(completion, truth=None, prompt="What is it?", tokens=5, **row):
    return Said(prompt, ({"role": "user", "content": prompt},), completion, truth, row, tokens, True)


def worth(kind, completion, truth=None, **more):
    [value] = kind.score([said(completion, truth, **more)])
    return value


WORTH = [
    (ExactMatch(), " The  Answer. ", "the answer", 1),
    (ExactMatch(ignore_case=False), "The answer", "the answer", 0),
    (ExactMatch(ignore_case=False), "the\nanswer", "the answer", 1),
    (ExactMatch(), "because\n42", "42", 0),
    (ExactMatch(last_line=True), "because\n42\n", "42", 1),
    (Regex(pattern=r"\d+"), "about 12", None, 1),
    (Regex(pattern=r"\d+", whole=True), "about 12", None, 0),
    (Regex(pattern="<a>.*</a>", whole=True), " <a>1\n2</a>\n", None, 1),
    (Regex(pattern="YES"), "yes", None, 0),
    (Regex(pattern="YES", ignore_case=True), "yes", None, 1),
    (JsonSchema(), '{"a": [1, 2]}', None, 1),
    (JsonSchema(), '{"a": [1, 2}', None, 0),
    (JsonSchema(), '{"a": NaN}', None, 0),
    (JsonSchema(), '```json\n{"a": 1}\n```', None, 0),
    (JsonSchema(fenced=True), '```json\n{"a": 1}\n```', None, 1),
    (JsonSchema(fenced=True), 'so: ```json\n{"a": 1}\n```', None, 0),
    (JsonSchema(fenced=True), ' ```\n\n"```"\n \n```\n', None, 1),
    (JsonSchema(fenced=True), "```json 1```", None, 0),
    (JsonSchema(fenced=True), "````", None, 0),
    (JsonSchema(), "[" * 100_000, None, 0),
    (MathEqual(), "so 3 + 4 = 7.", "7", 1),
    (MathEqual(), "7 apples, no: 8", "7", 0),
    (MathEqual(), "it is \\boxed{\\frac{3}{4}} of 9", "0.75", 1),
    (MathEqual(), "1,234,567", "1234567", 1),
    (MathEqual(), "-1/2", "\\boxed{-0.5}", 1),
    (MathEqual(), "\u22120.5", "-1/2", 1),
    (MathEqual(), "half, or 50%", "1/2", 1),
    (MathEqual(), "5/0", "5", 0),
    (MathEqual(), "none", "5", 0),
    (MathEqual(), "3/-x", "3", 1),  # nobody knows what a model may write behind a stroke
    (MathEqual(), "10 / - 5", "5", 1),
    (MathEqual(), "24/+", "5", 0),
    (MathEqual(), "5/e3", "5", 1),
    (MathEqual(), "\\frac{3}{-}", "1", 0),
    (MathEqual(), "6/-3", "-2", 1),
    (MathEqual(), "1e3", "thinking\n#### 1000", 1),
    (MathEqual(), "3.14", "3.14159", 0),
    (MathEqual(tolerance=0.001), "3.14", "3.14159", 1),
    (MathEqual(boxed_only=True), "7", "7", 0),
    (MathEqual(boxed_only=True), "\\boxed{7}", "7", 1),
    (MathEqual(), "\\boxed{x + 1}", "\\boxed{x+1}", 1),
    (MathEqual(), "\\boxed{x + 1", "\\boxed{x+1}", 0),
    (MathEqual(), "x +1", "x+1", 1),
    (MathEqual(), "$18", "18.00", 1),
    (Length(target=4, unit="words"), "one two three four", None, 1),
    (Length(target=4, unit="words"), "one two three", None, 0.75),
    (Length(target=4, unit="words", tolerance=1), "one two three", None, 1),
    (Length(target=4, unit="characters"), "12345678", None, 0),
    (Length(target=10), "any", None, 0.5),  # five tokens
    (Language(), "It is a cat", None, 1),
    (Language(), "这是一只猫", None, 0),
    (Language(script="Chinese"), "这是一只猫", None, 1),
    (Language(script="Chinese"), "这是一只 cat", None, 2 / 3),  # a word counts as two characters
    (Repetition(n=1), "a b c d", None, 0),
    (Repetition(n=1), "a A a a", None, -0.75),
    (Repetition(n=2), "猫狗猫狗", None, -1 / 3),
    (Repetition(n=3), "a b", None, 0),
]


@pytest.mark.parametrize(("kind", "completion", "truth", "expected"), WORTH, ids=map(str, range(len(WORTH))))
def test_answers_are_worth_what_they_should_be(kind, completion, truth, expected):
    assert worth(kind, completion, truth) == pytest.approx(expected)


def test_numbers_are_read_exactly():
    assert number("0.1") * 3 == number("0.3")
    assert number("9" * 61) is None
    assert number("first 2, then x = 3.") == 3  # the last number


@pytest.mark.parametrize(
    ("kind", "completion", "why"),
    [
        (ExactMatch(), "a", "does not say what is right"),
        (MathEqual(), "a", "does not say what is right"),
        (Language(), "123", "the answer has no letters"),
        (Regex(pattern=r"(a+)+(b|c)*\1x", timeout=0.05), "a" * 5000, "longer than 0.05 s"),
    ],
    ids=["truth", "number", "letters", "slow"],
)
def test_what_cannot_be_scored_is_counted(kind, completion, why):
    with kind.scorer(None) as scorer:
        assert scorer.score([said(completion)]) == [None]
    [(reason, count)] = scorer.reasons.items()
    assert why in reason and count == 1


def test_json_is_held_against_a_schema_and_nothing_is_fetched(tmp_path):
    file = tmp_path / "schema.json"
    file.write_text(json.dumps({"type": "object", "required": ["n"], "properties": {"n": {"type": "integer"}}}))
    kind = JsonSchema(file=str(file))
    kind.refuse("rewards.0")
    assert [worth(kind, text) for text in ('{"n": 1}', '{"n": "1"}', "[]")] == [1, 0, 0]
    file.write_text('{"type": "no type"}')
    with pytest.raises(RecipeError, match=r"rewards.0.file: .*schema.json: is no JSON Schema"):
        JsonSchema(file=str(file)).refuse("rewards.0")
    away = {"$ref": "http://127.0.0.1:9/never"}
    draft = {"$schema": "http://json-schema.org/draft-07/schema#"}
    for schema in (away, {"items": away}, draft | {"definitions": {"a": away}}, {"not": {"$ref": "#/$defs/none"}}):
        file.write_text(json.dumps(schema))
        with pytest.raises(RecipeError, match=r"rewards.0.file: .*: refers to .*(never|none), which is not in it"):
            JsonSchema(file=str(file)).refuse("rewards.0")
    file.write_text('{"anyOf": [{"$ref": "#"}]}')
    with pytest.raises(RecipeError, match="refers to itself without end"):
        JsonSchema(file=str(file)).refuse("rewards.0")
    file.write_text(json.dumps(draft | {"properties": {"n": {"$ref": "#"}}, "not": {"$ref": draft["$schema"]}}))
    JsonSchema(file=str(file)).refuse("rewards.0")


def test_no_answer_makes_a_schema_or_a_fence_take_for_ever(tmp_path, monkeypatch):
    monkeypatch.setattr("tunesmith.rewards.json_schema.LONGEST", 0.05)
    slow, text, ends = r"(a+)+(b|c)*\1x", "a" * 5000, "aax"
    draft = {"$schema": "http://json-schema.org/draft-07/schema#"}
    names = {"patternProperties": {slow: {"type": "null"}}}
    cases = [  # a schema, an answer that it would take for ever over, one that it allows and one that it does not
        ({"items": {"pattern": slow}}, [text], [ends, 1], ["abc"]),
        (draft | {"items": {"$ref": "#"}, "pattern": slow}, [[text]], [[ends]], [["abc"]]),
        (names, {text: None}, {ends: None, "abc": 1}, {ends: 1}),
        (names | {"properties": {"n": {}}, "additionalProperties": False}, {text: 1}, {ends: None, "n": 1}, {"abc": 1}),
        ({"additionalProperties": {"type": "null"}, **names}, {text: 1}, {ends: None, "abc": None}, {"abc": 1}),
    ]
    for at, (schema, *answers) in enumerate(cases):
        file = tmp_path / f"{at}.json"
        file.write_text(json.dumps(schema))
        kind = JsonSchema(file=str(file))
        kind.refuse("rewards.0")
        with kind.scorer(None) as scorer:
            assert scorer.score([said(json.dumps(one)) for one in answers]) == [None, 1, 0], schema
            assert [*scorer.reasons] == [f"a pattern of {file} took longer than 0.05 s on an answer"]
    file.write_text(json.dumps(names | {"unevaluatedProperties": False}))
    with pytest.raises(
        RecipeError, match="with unevaluatedProperties, patterns of patternProperties may take for ever"
    ):
        JsonSchema(file=str(file)).refuse("rewards.0")
    began = time.process_time()
    for fence in ("```" + "\n" * 3000, "```json" + " \n" * 3000 + "``"):
        assert worth(JsonSchema(fenced=True), fence) == 0
        with pytest.raises(ValueError, match="is no JSON"):
            revision((), "", "").read(fence)
    assert time.process_time() - began < 1


def test_what_a_reward_fails_at_is_counted_and_does_not_end_it(tmp_path):
    deep = {"properties": {"a": {"$ref": "#/$defs/b"}}, "$defs": {"b": {"anyOf": [{"$ref": "#/$defs/b"}]}}}
    (tmp_path / "schema.json").write_text(json.dumps(deep))
    kind = JsonSchema(file=str(tmp_path / "schema.json"))
    kind.refuse("rewards.0")
    with kind.scorer(None) as scorer:
        assert scorer.score([said('{"b": 1}'), said('{"a": 1}')]) == [1, None]
    assert "the reward failed: RecursionError" in next(iter(scorer.reasons))


def test_a_pattern_that_is_none_is_refused():
    with pytest.raises(RecipeError, match="rewards.1.pattern: is no regular expression"):
        refuse_rewards([ExactMatch(), Regex(pattern="(")])


class Counting:
    """A reward model that gives the length of the last turn, and counts what it is asked."""

    def __init__(self):
        self.asked = []

    def classifier(self, path, batch_size, label):
        def ask(dialogues):
            self.asked += dialogues
            return [
                float(len(turns[-1]["content"])) if turns[-1]["content"] else Unscored("empty") for turns in dialogues
            ]

        return ask


def test_a_reward_model_is_asked_once_for_the_same_answer():
    tools = Counting()
    with RewardModel(path="m").scorer(tools) as scorer:
        assert scorer.score([said("aa"), said("b"), said("aa"), said("")]) == [2, 1, 2, None]
        assert scorer.score([said("b"), said("ccc")]) == [1, 3]
    assert [turns[-1]["content"] for turns in tools.asked] == ["aa", "b", "", "ccc"]
    assert tools.asked[0][0] == {"role": "user", "content": "What is it?"}


def test_scores_are_added_up_by_their_weights_and_what_fails_has_no_total():
    rewards = [ExactMatch(weight=2.0), Length(target=4, unit="words"), Length(target=9, unit="words", weight=0.0)]
    rows = [said("one two three four", "one two three four"), said("one two", "no"), said("one two", None)]
    with Scoring(rewards) as scoring:
        scored = scoring.score(rows)
    assert scored.total == [3.0, 0.5, None]
    assert scored.each["exact_match"] == [1.0, 0.0, None]
    assert names(rewards) == ["exact_match", "length", "length_2"] == list(scored.each)
    assert scored.figures["rewards/exact_match"] == 0.5
    assert scored.figures["rewards/length"] == pytest.approx((1 + 0.5 + 0.5) / 3)
    assert scored.figures["reward"] == 1.75 and scored.figures["rewards/failed"] == 1
    assert sum(scored.reasons["exact_match"].values()) == 1


def test_a_batch_of_which_nothing_can_be_scored_stops_with_the_reason():
    with Scoring([Length(target=3), ExactMatch()]) as scoring:
        with pytest.raises(Refusal, match="none of 2 .*exact_match"):
            scoring.score([said("a"), said("b")])
        assert scoring.score([said("a", "a"), said("b")]).failed == 1
        assert scoring.score([said("a"), said("b")]).failed == 2  # by now it may be the answers


def test_rewards_stand_in_a_recipe_and_load_back():
    text = "model: {path: m}\ndata: {path: d}\nrewards:\n- exact_match\n- {name: regex, pattern: 'yes', weight: 2}\n"
    loaded = load(Run, text=text, words=["rewards.1.whole=true", "rewards.2=length", "rewards.2.target=5"])
    assert loaded.value.rewards == (ExactMatch(), Regex(pattern="yes", weight=2.0, whole=True), Length(target=5))
    assert load(Run, text=to_yaml(loaded.value, loaded.origins)).value == loaded.value
    assert load(Run, text=text, words=["rewards=[length]", "rewards.0.target=3"]).value.rewards == (Length(target=3),)
    assert load(Run, text=text, words=["rewards.1.name=length", "rewards.1.target=3"]).value.rewards[1:] == (
        Length(target=3),
    )


@pytest.mark.parametrize(
    ("rewards", "words", "expected"),
    [
        ("[{name: regx}]", [], "recipe:3: rewards.0: no such reward 'regx'; did you mean 'regex'?"),
        ("\n- exact_match\n- {name: regex,\n   pattern: 3}", [], "recipe:6: rewards.1.regex.pattern: must be text"),
        ("[{weight: 1}]", [], "rewards.0: needs a name; known: exact_match"),
        ("[{name: length, target: 1, taget: 2}]", [], "rewards.0.length.taget: no such key; did you mean 'target'?"),
        ("length", [], "rewards: must be a list, each one of exact_match"),
        ("[length]", [], "recipe:3: rewards.0.length.target: needed, but not given"),
        ("[exact_match]", ["rewards.4.name=regex"], "command line: rewards.4.name: the list has 1;"),
        ("[{name: judge, judge: {modl: x}}]", [], "rewards.0.judge.judge.modl: no such key; did you mean 'model'?"),
    ],
)
def test_a_mistake_in_a_list_is_named(rewards, words, expected):
    with pytest.raises(RecipeError) as caught:
        load(Run, text=f"model: {{path: m}}\ndata: {{path: d}}\nrewards: {rewards}\n", words=words)
    assert expected in str(caught.value)


def test_no_reward_gives_what_is_no_number():
    entry = reward.all()["length"](target=1)
    with entry.scorer(None) as scorer:
        assert scorer.checked(math.nan) is None and scorer.checked(math.inf) is None
    assert scorer.reasons.total() == 2


def test_what_a_model_answers_to_an_example_is_what_rewards_read():
    from tunesmith.data.example import Answer, Example, Message
    from tunesmith.rollout.turns import said as answered

    turns = (Message("user", "one?"), Message("assistant", "1"), Message("user", "two?"))
    asked = answered(Example(prompt=turns, truth="2", others={"n": 3}), "two", 1, True)
    assert (asked.prompt, asked.truth, asked.row, asked.messages[1]) == (
        "two?",
        "2",
        {"n": 3},
        {"role": "assistant", "content": "1"},
    )
    known = Example(prompt=turns, answers=(Answer((Message("assistant", "2"),)),))
    assert ExactMatch().score([answered(known, "2", 1, True)]) == [1]


def test_a_run_with_a_reward_that_cannot_be_is_refused_before_anything_is_read():
    from tunesmith.training.train import refuse

    run = load(Run, words=["model.path=none", "data.path=none", "rewards.0=regex", "rewards.0.pattern=("]).value
    with pytest.raises(RecipeError, match="rewards.0.pattern"):
        refuse(run)


def test_what_decides_a_reward_is_in_the_passport(tmp_path, model_folder, reviews):
    from tunesmith.cli import main

    (tmp_path / "mine.py").write_text("def good(completion):\n    return 1\n")
    words = [f"model.path={model_folder}", f"data.path={reviews}", f"output={tmp_path / 'run'}", "objective=grpo"]
    words += ["objective.max_completion_length=2", "data.format=text"]
    mine = f"rewards=[{{name: function, path: {tmp_path}/mine.py:good}}]"
    with pytest.raises(SystemExit) as left:
        main(["train", *words, "train.max_steps=1", "eval.enabled=false", mine])
    assert not left.value.code
    manifest = json.loads((tmp_path / "run" / "manifest.json").read_text())
    assert f"rewards.0: {tmp_path}/mine.py" in manifest["data"]
