"""docs/preference.md and preference.zh.md, made of the losses and of what TRL makes of the same numbers.

`python tests/docs/preference_page.py`, with tests/ on the path, writes them.
"""

import inspect
import re
from pathlib import Path

from parity.test_preference import LOSSES, NEEDS, TRL, judged, made

from tunesmith.objectives.dpo import DPO

DOCS = Path(__file__).parents[2] / "docs"
EN = """# Learning from preferences

Rows say which of two answers is better (`data.format.name=preference`), or whether an answer was liked (`feedback`).

| objective | learns from | reference | main options |
|-|-|-|-|
| `dpo` | pairs | yes | `loss_type`, `loss_weights`, `beta`, `beta_end`, `label_smoothing`, `ld_alpha` |
| `kto` | likes, or pairs: liked and not liked | yes | `beta`, `desirable_weight`, `undesirable_weight` |
| `simpo` | pairs | no | `beta`, `simpo_gamma` |
| `cpo` | pairs | no | `beta`, `cpo_alpha` |
| `orpo` | pairs | no | `beta` |

`tunesmith train recipes/dpo.yaml data.path=my_pairs.jsonl`; `kto.yaml` and `orpo.yaml` likewise.

**The reference** is the model that is trained, as its weights stand before the first step, whatever the method: the
first loss of `dpo` is ln 2. `objective.reference` names another model. Its log-probabilities are computed before the
model that learns is loaded, so that two are never in memory, and kept on the disk for later runs, until they were not
used for 30 days.

**Several losses** are a list: `objective.loss_type=[sigmoid, sft] objective.loss_weights=[1, 0.2]` is DPO with a term
that says the better answer. An option that the chosen losses make nothing of is refused.

**A schedule of beta**: with `beta_end` it goes there in a straight line; held-out rows are measured with `beta`.

**What is compared over a step.** `aot` ranks all pairs of a step, and `kto` has a baseline of its own for a step. Both
are found in a pass over the whole step before any of it is judged, so that cutting a step into parts, its order, or a
second process changes nothing. `aot` therefore takes one more forward pass; with dropout, what a pair is ranked
against is computed without it.

**Beside the loss** are logged: `accuracy` (the share of pairs in which the better answer has the larger reward; where
both are level it counts one half), `rewards/chosen`, `rewards/rejected`, `rewards/margins`, `logps/chosen`,
`logps/rejected`, `entropy` (of what the model might say at each token of the answers, in nats; watched, not learnt
from); of `kto` also `kl`; of `orpo` and `cpo` `nll_loss`.

**Held-out pairs** are measured before and after for accuracy, and for whether the judgement can be believed:
calibration error and Brier score, as of [reward models](reward.md). The odds are those that the loss itself takes for
them: of `dpo` beta times the gap (with `sigmoid`, `sigmoid_norm`, `robust` or `exo_pair` among its losses; the others
judge no odds), of `simpo` and `cpo` the difference of rewards, of `orpo` the odds ratio.

**An adapter** that a run goes on from (`method.adapter`, `model.adapters`) must have been made over the same weights:
its run's passport tells, and another base is refused, for no reference would then be its base.

## Loss by loss

Each loss on the same made-up log-probabilities of {answers} answers: its value here, TRL {trl}'s, and by how much any
gradient differs. `tests/parity/trl_preference.py` asks TRL, `tests/parity/test_preference.py` compares, and writes
each paper's formula a second time. Where the name says no more, beta is 0.1, and `robust` and `exo_pair` have
`label_smoothing` 0.1.

{table}

Where we differ from TRL on purpose:

- `sft` and the term of `cpo` and `orpo` are a mean over the tokens of an answer, and then over answers, so that neither
  a batch's cuts nor a long answer decide how much others count. TRL's is a mean over the tokens of a batch: the same
  for one pair at a time, which is how it was asked here. TRL's `orpo` also learns the prompt; ours does not.
- `label_smoothing` counts in `sigmoid` (the conservative DPO), which TRL 1.16 leaves out.
- `bco_pair` has no running shift, as in TRL 1.16.
- `kto`'s baseline is of the whole step over all processes, and of answers to the next row that asks something else;
  TRL's is of a batch on each process, and depends on what is in it. Where all rows have one prompt, as those of
  `demo/movie-pairs`, nobody asks something else: it is then of the next answer, and the run says so.

{losses}
"""
ZH = """# 从偏好中学习

数据行说明两个回答中哪个更好（`data.format.name=preference`），或某个回答是否受欢迎（`feedback`）。

| 目标 | 学习对象 | 参考模型 | 主要选项 |
|-|-|-|-|
| `dpo` | 成对回答 | 需要 | `loss_type`、`loss_weights`、`beta`、`beta_end`、`label_smoothing`、`ld_alpha` |
| `kto` | 单个评价，或成对回答 | 需要 | `beta`、`desirable_weight`、`undesirable_weight` |
| `simpo` | 成对回答 | 不需要 | `beta`、`simpo_gamma` |
| `cpo` | 成对回答 | 不需要 | `beta`、`cpo_alpha` |
| `orpo` | 成对回答 | 不需要 | `beta` |

`tunesmith train recipes/dpo.yaml data.path=my_pairs.jsonl`；`kto.yaml` 与 `orpo.yaml` 用法相同。

**参考模型**是被训练的模型在第一步之前的权重，与微调方法无关：`dpo` 的第一个损失就是 ln 2。`objective.reference`
可以指定另一个模型：先单独载入它计算对数概率并缓存到磁盘（30 天没用的会删除），再载入要训练的模型，
内存中绝不同时有两个模型。

**多个损失**写成列表：`objective.loss_type=[sigmoid, sft] objective.loss_weights=[1, 0.2]` 即带监督项的 DPO。
所选损失用不到的选项会被拒绝。

**beta 的变化**：设置 `beta_end` 后 beta 沿直线变到该值；留出数据始终用 `beta` 评测。

**整步比较**：`aot` 对一步内的所有成对数据排序，`kto` 的基线也取自整步。两者都在评判之前先对整步做一次前向计算，
因此切分批次、改变顺序或使用两个进程都不改变梯度。`aot` 因此多一次前向计算；有 dropout 时，排序所用的值不含 dropout。

**记录的指标**：`accuracy`、`rewards/chosen`、`rewards/rejected`、`rewards/margins`、`logps/chosen`、`logps/rejected`、
`entropy`（模型在回答的每个词元处可能写出的内容的熵，单位奈特；只观察，不学习）；
`kto` 另有 `kl`；`orpo` 与 `cpo` 另有 `nll_loss`。

**留出的成对数据**在训练前后各测一次：准确率，以及判断是否可信：校准误差与 Brier 分数，
同[奖励模型](reward.zh.md)。所用的几率就是损失本身所取的几率：`dpo` 为 beta 乘差距
（损失中须有 `sigmoid`、`sigmoid_norm`、`robust` 或 `exo_pair`；其余损失不判断几率），
`simpo` 与 `cpo` 为奖励之差，`orpo` 为几率比。

**适配器**：一次训练接续的适配器（`method.adapter`、`model.adapters`）必须建立在相同的权重之上，
由其训练的护照核对；底座不同则拒绝，因为没有哪个参考会是它的底座。

## 逐个损失对照

在同一组虚构的 {answers} 个回答的对数概率上：此处的值、TRL {trl} 的值，以及梯度的最大差。除非名称中注明，beta 为 0.1；
`robust` 与 `exo_pair` 的 `label_smoothing` 为 0.1。

{table}

有意与 TRL 不同之处：

- `sft` 以及 `cpo`、`orpo` 中的监督项先对一个回答的词元取平均，再对回答取平均，因此切分批次不改变结果；TRL 对一个批次的
  所有词元取平均（此处按每批一对询问 TRL）。TRL 的 `orpo` 还学习提示，这里不学。
- `label_smoothing` 对 `sigmoid` 也起作用（保守 DPO），TRL 1.16 没有。
- `bco_pair` 与 TRL 1.16 一样没有滑动偏移。
- `kto` 的基线取自所有进程的整步，所用的错配回答来自其后问题不同的第一行；TRL 的基线取自各进程的一个批次。
  若所有行的提示都相同（如 `demo/movie-pairs`），就没有问题不同的行：此时用下一个回答，运行时会说明。
"""
HEADS = {
    "en": "| objective | loss | here | TRL | gradient differs by |",
    "zh": "| 目标 | 损失 | 此处 | TRL | 梯度最大差 |",
}


def table(head: str) -> str:
    return "\n".join([head, "|-|-|-|-|-|", *map(row, TRL["cases"])])


def row(case: dict) -> str:
    value, apart = against(case)
    size = "< 1e-9" if apart < 1e-9 else f"{apart:.0e}"
    return f"| `{case['objective']}` | {case['name']} | {value:.6f} | {case['value']:.6f} | {size} |"


def against(case: dict) -> tuple[float, float]:
    """A loss's value here, and how far its gradient is from TRL's; of orpo, without the term that TRL has elsewhere."""
    aim = made(case["objective"], case["options"])
    value, slope = judged(aim, TRL["token"], TRL["reference"], TRL["kl"])
    expected = [one for row in case["gradient"] for one in row]
    if case["objective"] == "orpo":
        said, told = judged(DPO(loss_type="sft"), TRL["token"], TRL["reference"])
        value, slope = value - said, slope - told
    return value, max(abs(one - other) for one, other in zip(slope.tolist(), expected, strict=True))


def losses() -> str:
    """Each loss of dpo, as its docstring says it."""
    found = ["## What each loss is", ""]
    for name, function in LOSSES.items():
        said = re.sub(r"\s+", " ", inspect.getdoc(function) or "").strip()
        said = re.sub(r"arXiv:(\d{4}\.\d{5})", r"[arXiv:\1](https://arxiv.org/abs/\1)", said)
        need = " Needs `label_smoothing`." if name in NEEDS else ""
        found.append(f"- `{name}`: {said}{need}")
    return "\n".join(found)


def pages() -> dict[str, str]:
    facts = {"answers": len(TRL["token"]), "trl": TRL["made by"]["trl"]}
    return {
        "preference.md": EN.format(table=table(HEADS["en"]), losses=losses(), **facts),
        "preference.zh.md": ZH.format(table=table(HEADS["zh"]), **facts),
    }


if __name__ == "__main__":
    for name, text in pages().items():
        (DOCS / name).write_text(text, encoding="utf-8")
