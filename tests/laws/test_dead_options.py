"""Law: no option is dead. Another value of it changes what is seen of a tiny run: rows, losses, weights, files, words.

The schema is walked, so that a new option is tried by being there; what cannot be made up is in `VALUES`, what must be
set for it to matter in `WITH`. Where a refusal is all that can be seen, the option stands in `REFUSED`.
"""

import json
from dataclasses import fields
from functools import partial
from string import ascii_lowercase
from typing import Annotated, Literal, get_args, get_origin, get_type_hints

import pytest
from seen import Seen

from tunesmith.config.choice import Choice
from tunesmith.config.describe import rows
from tunesmith.config.load import load
from tunesmith.data.formats.base import format_
from tunesmith.grid.tiny import NUMBERS, tiny
from tunesmith.run import Run

ELSEWHERE = {
    "train.report_to.N.": "tests/training/test_trackers.py: another project is another place",
    "notify.N.": "tests/training/test_notices.py: another address, end or secret sends otherwise",
    "rewards.N.": "tests/rewards/test_options.py walks these",
    "train.optim.": "tests/optimizers/test_options.py walks these",
    "model.precision.": "tests/parity/test_precision.py: what is said with another value",
    "objective.sampler.": "tests/rollout/test_vllm.py: where it is asked, for how long, and with how much room",
    "data.format.": "test_another_way_to_read_reads_otherwise, below",
}
EXEMPT = {
    "eval.batch_size": "how many rows are asked at once changes no figure: tests/model/test_engine.py",
    "eval.max_new_tokens": "not to be seen of these rows; what it limits: tests/model/test_engine.py",
    "data.subset": "chooses among the lists of a README.md: tests/data/test_configs.py",
    "data.split": "chooses among the lists of a README.md: tests/data/test_configs.py",
    "model.liger": "needs a GPU and a package",
    "model.max_memory": "where weights wait changes no number: tests/model/test_offload.py",
    "train.activation_offload": "where activations wait changes no number: tests/model/test_offload.py",
    "notify": "sends to an address: tests/training/test_notices.py",
    "model.path": "needed: there is no run without it",
    "data.path": "needed: there is no run without it",
    "data.media_dir": "rows that speak of images are not trained on yet; tests/data/test_lint.py looks for the files",
    "train.auto_batch": "acts when memory runs out: tests/training/test_trouble.py",
    "train.torch_compile": "takes a minute: tests/model/test_compiled.py",
    "model.rope_scaling.factor [dynamic]": "acts on texts longer than the model's own length, which only asking has",
}
REFUSED = {
    "data.format": "these rows are of one format",
    "data.on_lint": "one of the two stops",
    "method.adapter [adalora]": "ranks that were dropped do not come back",
    "data.sha256": "for https:// addresses alone",
    "train.fp16": "needs a GPU",
    "method.boft_n_butterfly_factor [boft]": "more than 1 needs a GPU",
    "method.adapter [p_tuning]": "what a network has made does not go on",
    "method.init_lora_weights=loftq [lora]": "needs a quantised base: tests/parity/test_precision.py",
    "train.train_sampling_strategy=balanced": "needs several sources: tests/training/test_order.py",
    "train.on_nan": "one of the two stops",
    "train.max_skipped_steps": "fewer than there are bad steps stop the run",
}
VALUES = {
    "model.adapters": "[{adapter}]",
    "model.precision": "bf16",
    "model.rope_scaling": "linear",
    "model.rope_scaling.beta_fast [yarn]": "1.5",
    "model.rope_scaling.beta_slow [yarn]": "0.1",
    "model.attn": "{{name: shifted, group_size: 8}}",
    "model.attn.group_size [shifted]": "16",
    "data.format": "sharegpt",
    "data.eval_size": "0.6",
    "data.task": "tone",
    "data.also": "[{{path: {folder}/also.jsonl}}]",
    "data.eval_path": "{folder}/also.jsonl",
    "data.sha256": "abc0",
    "data.max_samples": "5",
    "data.max_length": "43",
    "data.temperature": "3.0",
    "data.weight": "3.0",
    "data.train_on": "[user]",
    "method": "full",
    "method.modules_to_save": "[norm]",
    "method.adapter": "{saved}",
    "method.target_modules": "[q_proj, down_proj]",
    "method.target_modules [layernorm]": "[input_layernorm]",
    "method.target_modules [ia3]": "[q_proj]",
    "method.feedforward_modules [ia3]": "[]",
    "method.terms [bitfit]": "[q_proj]",
    "method.modules [freeze]": "[norm]",
    "method.num_layers [freeze]": "1",
    "method.modules_to_save [layernorm]": "[down_proj]",
    "method.beta1 [adalora]": "0.05",
    "method.beta2 [adalora]": "0.05",
    "method.rank_pattern": "{{q_proj: 2}}",
    "method.alpha_pattern": "{{q_proj: 2}}",
    "method.target_parameters [lora]": "[mlp.gate_proj.weight]",
    "method.boft_block_size [boft]": "8",
    "method.oft_block_size [oft]": "16",
    "method.prompt_tuning_init_text [prompt_tuning]": "one",
    "method.init_text [prefix_tuning]": "one",
    "method.init_weights [prefix_tuning]": "random",
    "method.bottleneck_size [bottleneck]": "8",
    "method.pissa_niter [lora]": "2",
    "method.eva_rho [lora]": "1.0",
    "method.init_r [adalora]": "10",
    "method.tinit [adalora]": "1",
    "method.tfinal [adalora]": "1",
    "objective": "pretrain",
    "objective.weights [classify]": "{{tone: 3.0}}",
    "objective.weights [mixed]": "{{labels: 3.0}}",
    "objective.teacher [distill]": "{folder}/base",
    "objective.teacher [gkd]": "{folder}/base",
    "objective.reference": "{folder}/teacher",
    "objective.loss_type [dpo]": "hinge",
    "objective.loss_weights [dpo]": "[2.0]",
    "objective.stop": "[abcd]",
    "objective.sampler": "half",
    "objective.num_generations": "2",
    "objective.max_completion_length": "3",
    "objective.min_p": "0.9",
    "objective.importance_cap": "0.5",
    "objective.epsilon_high [grpo]": "0.01",
    "objective.kl_target [ppo]": "0.01",
    "objective.kl_horizon [ppo]": "1.0",
    "rewards": "[{{name: length, target: 2, unit: characters}}]",
    "output": "elsewhere",
    "train.lr_scheduler_type": "cosine",
    "train.lr_scheduler_type.min_lr [cosine_with_min_lr]": "1e-3",
    "train.lr_scheduler_type.min_lr [cosine_warmup_with_min_lr]": "1e-3",
    "train.optim": "sgd",
    "train.max_steps": "3",
    "train.num_train_tokens": "90",
    "train.max_seconds": "1e-9",
    "train.max_tokens_per_batch": "64",
    "train.neftune_noise_alpha": "5.0",
    "train.report_to": "[tensorboard]",
    "train.logging_steps": "2",
    "train.eval_steps": "2",
    "train.save_steps": "2",
    "train.save_total_limit": "1",
    "train.max_skipped_steps": "1",
    "eval.max_samples": "2",
    "eval.task": "exact_match",
}
TWO = ("data.also=[{{path: {folder}/also.jsonl}}]",)
MIXED = (*TWO, "data.mixing=interleave_over")
LABELS = ("data.path={folder}/labels.jsonl",)
PAIRS = ("data.path={folder}/pairs.jsonl",)
ASKED = (
    "data.path={folder}/asked.jsonl",
    "train.num_train_epochs=0.5",
    "objective.max_completion_length=4",
    "objective.num_generations=4",
    f"objective.stop=[{', '.join(ascii_lowercase)}]",
    "rewards=[{{name: regex, pattern: '[a-z]'}}, {{name: regex, pattern: '[ -Z]', weight: 0.3}}]",
)
"""Prompts, answers that end where a letter is drawn, and what they are worth: letters, and signs."""
FAR = ("objective.num_iterations=3", "train.learning_rate=0.1")
"""From one rollout as many steps, so large that they come to where they are cut."""
MAKES_NO_NUMBERS = ("train.learning_rate=1e30",)
WITH = {
    "data.mixing": TWO,
    "data.task": ("objective=mixed", *LABELS, "data.also=[{{path: {folder}/rows.jsonl}}]", "data.eval_size=0.0"),
    "data.weight": MIXED,
    "data.temperature": MIXED,
    "data.truncation": ("data.max_length=43",),
    "data.thinking": ("data.path={folder}/thinking.jsonl",),
    "data.on_bad_row": ("data.path={folder}/bad.jsonl",),
    "data.on_lint": ("data.path={folder}/same.jsonl",),
    "model.attn.group_size": ("model.attn=shifted",),
    "objective=classify": LABELS,
    "objective=cpo": PAIRS,
    "objective=distill": ("objective.teacher={folder}/teacher",),
    "objective=dpo": PAIRS,
    "objective=gkd": (*ASKED, "objective.teacher={folder}/teacher"),
    "objective=grpo": ASKED,
    "objective=kto": ("data.path={folder}/judged.jsonl",),
    "objective=mixed": (*LABELS, "data.also=[{{path: {folder}/rows.jsonl}}]"),
    "objective=online_dpo": ASKED,
    "objective=orpo": PAIRS,
    "objective=ppo": ASKED,
    "objective=reinforce_pp": ASKED,
    "objective=reward": ("data.path={folder}/rated.jsonl",),
    "objective=rloo": ASKED,
    "objective=simpo": PAIRS,
    "objective.weights [classify]": (
        *LABELS,
        "data.task=tone",
        "data.also=[{{path: {folder}/numbers.jsonl, task: number}}]",
    ),
    "objective.discopop_tau [dpo]": (*PAIRS, "objective.loss_type=discopop"),
    "objective.loss_weights [dpo]": (*PAIRS, "objective.loss_type=[hinge]"),
    "objective.epsilon": (*ASKED, *FAR),
    "objective.epsilon_high [grpo]": (*ASKED, *FAR),
    "objective.importance_sampling_level [grpo]": (*ASKED, *FAR),
    "objective.num_mini_batches": (*ASKED, "train.per_device_train_batch_size=4"),
    "objective.num_mini_batches [gkd]": (
        *ASKED,
        "train.per_device_train_batch_size=4",
        "objective.teacher={folder}/teacher",
    ),
    "objective.cliprange [ppo]": (*ASKED, *FAR),
    "objective.cliprange_value [ppo]": (*ASKED, *FAR),
    "objective.kl_coef": (*ASKED, "train.num_train_epochs=1"),
    "objective.kl_target [ppo]": (*ASKED, "train.num_train_epochs=1"),
    "objective.kl_horizon [ppo]": (*ASKED, "train.num_train_epochs=1", "objective.kl_target=0.01"),
    "rewards": ("objective=grpo", *ASKED),
    "method.target_parameters [lora]": ("method.target_modules=[q_proj]",),
    "method.eva_rho [lora]": ("method.init_lora_weights=eva",),
    "method.pissa_niter [lora]": ("method.init_lora_weights=pissa",),
    "method.feedforward_modules [ia3]": ("method.target_modules=[k_proj, down_proj]",),
    "method.encoder_num_layers [p_tuning]": ("method.encoder_reparameterization_type=LSTM",),
    "method.encoder_dropout [p_tuning]": ("method.encoder_reparameterization_type=LSTM",),
    "method.encoder_hidden_size [prefix_tuning]": ("method.prefix_projection=true",),
    "method.eps [oft]": ("method.coft=true",),
    "train.lr_scheduler_type.": ("train.warmup_steps=4", "train.max_steps=24"),
    "method.beta1 [adalora]": ("train.max_steps=12",),
    "method.beta2 [adalora]": ("train.max_steps=12",),
    "train.optimizer_in_backward": ("train.max_grad_norm=0",),
    "train.eval_strategy": ("train.eval_steps=2",),
    "train.save_strategy": ("train.num_train_epochs=2.0",),
    "train.eval_steps": ("train.eval_strategy=steps",),
    "train.save_total_limit": ("train.save_steps=2",),
    "train.on_nan": MAKES_NO_NUMBERS,
    "train.max_skipped_steps": (*MAKES_NO_NUMBERS, "train.on_nan=skip"),
}


def key(row) -> str:
    """A setting, and the choice that brings it."""
    return f"{row.path} [{row.when.partition('=')[2]}]" if row.when else row.path


def told(table, row, default):
    """What a table says of a setting: by itself, for all that have its name, or for all below a choice."""
    names = (key(row), row.path, row.when, row.path.rpartition(".")[0] + ".")
    return next((table[name] for name in names if name in table), default)


NOBODY_KNOWS = "?"


def others(row) -> list[str]:
    """Legal values of a setting that it does not have."""
    if value := told(VALUES, row, None):
        return [value]
    hint = row.type
    while get_origin(hint) is Annotated or type(None) in get_args(hint):
        hint = next(part for part in get_args(hint) if part is not type(None))
    if get_origin(hint) is Literal:
        return [str(value) for value in get_args(hint) if value != row.default]
    if hint is bool:
        return [str(not row.default).lower()]
    if hint in (int, float) and not Choice.of(row.type) and row.default != "needed":
        return [number(hint, row.default)]
    return [NOBODY_KNOWS]


def number(kind, default) -> str:
    if default is None:
        return "3" if kind is int else "0.3"
    if kind is int:
        return str(default // 2 or default + 1)
    return str(default / 2) if default else "0.3"


def elsewhere(row) -> bool:
    return any(row.path.startswith(start) for start in ELSEWHERE) or key(row) in EXEMPT


def case_of(row, value: str) -> str:
    """What one of several values of a setting is called."""
    return key(row).replace(row.path, f"{row.path}={value}", 1)


CASES = {
    case_of(row, value) if len(others(row)) > 1 else key(row): (row, value)
    for row in rows(Run)
    if not elsewhere(row)
    for value in others(row)
}


def lines(file, rows):
    file.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A tiny model and rows of every kind that an option needs to matter."""
    with tiny() as made:
        folder = made.folder

        def said(n, **more):
            one, two = NUMBERS[n % 8], NUMBERS[(n + 3) % 8]
            turns = [{"role": "user", "content": f"after {one} {n}?"}, {"role": "assistant", "content": two, **more}]
            return {"messages": turns * 2}

        lines(folder / "rows.jsonl", [said(n) for n in range(14)])
        asked = [{"prompt": f"after {one}?", "answer": two} for one, two in zip(NUMBERS, NUMBERS[1:], strict=False)]
        lines(folder / "asked.jsonl", asked)
        rated = [{"prompt": f"{n}?", "chosen": "two", "rejected": "one", "margin": n / 7} for n in range(14)]
        lines(folder / "rated.jsonl", [row | {"agreement": 1 - row["margin"] / 5} for row in rated])
        lines(folder / "labels.jsonl", [{"text": f"{n} is it", "label": "ab"[n % 2]} for n in range(14)])
        lines(folder / "numbers.jsonl", [{"text": f"{n} of it", "label": "cd"[n % 2]} for n in range(14)])
        lines(folder / "thinking.jsonl", [*(said(n) for n in range(13)), said(13, thinking="four, I think")])
        lines(folder / "also.jsonl", [said(n) for n in range(20, 26)])
        lines(folder / "same.jsonl", [{"prompt": f"{n}?", "chosen": "one", "rejected": "one"} for n in range(14)])
        lines(folder / "bad.jsonl", [*(said(n) for n in range(13)), {"messages": 3}])
        yield made


@pytest.fixture(scope="module")
def seen(place, tmp_path_factory):
    return Seen(tmp_path_factory.mktemp("seen"))


def base_words(place, row) -> tuple[str, ...]:
    chosen = (f"{row.when}",) if row.when else ()
    return (
        f"model.path={place.base}",
        f"data.path={place.folder}/rows.jsonl",
        "train.learning_rate=5e-3",
        "data.eval_size=0.3",
        "train.per_device_train_batch_size=3",
        *chosen,
        *(word.format(folder=place.folder) for word in told(WITH, row, ())),
    )


def saved_by(seen, place, row, words) -> str:
    """The adapter that the usual run leaves, for options that name one."""
    folder = place.folder / "saved" / (row.when or "usual").replace("=", "-")
    if not folder.exists():
        from tunesmith.training.train import train

        train(load(Run, None, [*words, f"output={folder}", "eval.enabled=false"]).value, quiet=True)
    return str(folder)


def marks(row):
    """Methods and objectives are many, and each by itself seldom changes: all but a few wait for `make slow`."""
    often = {"", "method=lora", "objective=dpo"}
    return [pytest.mark.slow] if row.when.startswith(("method=", "objective=")) and row.when not in often else []


@pytest.mark.parametrize(
    ("row", "value"), [pytest.param(*case, id=name, marks=marks(case[0])) for name, case in CASES.items()]
)
@pytest.mark.filterwarnings("ignore")
def test_another_value_can_be_seen(row, value, place, seen):
    assert value is not NOBODY_KNOWS, f"{key(row)}: name another value of it in VALUES"
    words = base_words(place, row)
    adapter = partial(saved_by, seen, place, row, words)
    value = value.format(
        folder=place.folder,
        adapter=adapter() if "{adapter}" in value else "",
        saved=adapter() if "{saved}" in value else "",
    )
    changed = (*words, f"{row.path}={value}")
    one = other = None
    for one, other in zip(seen.levels(words), seen.levels(changed), strict=False):
        if one != other:
            assert not isinstance(other, str) or REFUSED.keys() & {key(row), case_of(row, value)}, other
            return
    said = f", for both are {one}" if isinstance(one, str) else ""
    pytest.fail(f"{key(row)}: {value} changes nothing that can be seen{said}")


def test_two_runs_alike_look_alike(place, tmp_path):
    """Else everything would be seen to change everything."""
    [row] = [row for row in rows(Run) if row.path == "train.seed"]
    words = base_words(place, row)
    (tmp_path / "one").mkdir(), (tmp_path / "other").mkdir()
    one, other = (list(Seen(tmp_path / name).levels(words)) for name in ("one", "other"))
    assert len(one) == 3 and one == other


def test_the_lists_name_options_that_there_are():
    there = {key(row) for row in rows(Run)} | {row.path for row in rows(Run)} | {row.when for row in rows(Run)}
    starts = {row.path.rpartition(".")[0] + "." for row in rows(Run)}
    for table in (VALUES, WITH, EXEMPT, REFUSED, ELSEWHERE):
        assert {name for name in table if name not in there | starts | set(CASES)} == set()


# --- how rows are read ------------------------------------------------------------------------------------------------

TURNS = [
    {"role": "system", "content": "be brief"},
    {"role": "user", "content": "one?"},
    {"role": "assistant", "content": "two"},
]
COLUMNS = {
    "system": "be brief", "tools": '[{"name": "look", "description": "", "parameters": {}}]',
    "images": ["a.png"], "videos": ["a.mp4"], "audios": ["a.wav"],
    "instruction": "say", "input": "this", "output": "that", "history": [["a", "b"]],
    "prompt": "one?", "completion": "two", "label": True, "text": "one", "chosen": "two", "rejected": "three",
    "question": "one?", "answer": "two", "messages": TURNS[1:],
    "conversations": [{"from": "human", "value": "one?"}, {"from": "gpt", "value": "two"}],
    "input_ids": [1, 2, 3], "labels": [-100, 2, 3], "attention_mask": [1, 1, 1],
    "other": "four", "others": [["c", "d"]],
}  # fmt: skip
"""A row that has every column that any format reads."""


def read_rows():
    """That row; the same with turns where it has texts; and with turns whose role nobody knows, unless told."""
    yield COLUMNS
    turning = {"prompt": TURNS[:2], "messages": TURNS, "conversations": TURNS, "completion": TURNS[2:]}
    yield COLUMNS | turning | {"label": "a,b", "chosen": TURNS[2:], "rejected": [TURNS[2] | {"content": "three"}]}
    for at in range(4):
        turns = [*TURNS, {"role": "tool", "content": '{"name": "look", "arguments": {}}'}]
        turns[at] = turns[at] | {"role": "weird"}
        asked = turns[:2] if at < 2 else turns
        yield COLUMNS | {"system": None, "prompt": asked, "messages": turns, "conversations": turns}


OTHERWISE = {
    "template.prompt": "{other}",
    "template.answer": "{other}",
    "labelled.separator": ",",
    "preference.history": "history",
    "feedback.history": "history",
}
BESIDE = {"labelled.separator": {"kind": "several"}}
RAN = {"process": "runs a file: tests/data/test_formats.py", "auto": "takes another format's options"}


def column_options():
    for name, entry in format_.all().items():
        for field in fields(entry) if name not in RAN else ():
            usual = "weird" if field.name.endswith("_tag") else "other"
            values = get_args(get_type_hints(entry)[field.name]) if field.name == "kind" else (usual,)
            for value in values:
                if value != field.default:
                    yield name, field.name, OTHERWISE.get(f"{name}.{field.name}", value)


@pytest.mark.parametrize(("name", "option", "value"), list(column_options()))
def test_another_way_to_read_reads_otherwise(name, option, value):
    def said(options, row):
        try:
            return repr(format_[name](**options).read(row))
        except ValueError as fault:
            return f"refused: {fault}"

    beside = BESIDE.get(f"{name}.{option}", {})
    pairs = [(said(beside, row), said(beside | {option: value}, row)) for row in read_rows()]
    assert any(one != other for one, other in pairs), pairs[0]
    assert not all(one.startswith("refused") and other.startswith("refused") for one, other in pairs), pairs
