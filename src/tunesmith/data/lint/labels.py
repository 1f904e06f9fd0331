"""Token ids with labels of their own, as a process function gives them."""

from itertools import takewhile
from typing import Any

from .base import Rule, Said, Simple, rule

IGNORED = -100


@rule("misaligned-labels")
class MisalignedLabels(Rule):
    """A label is neither the token at its place nor -100, or padding is learnt."""

    severity = "error"
    zh = "某个标签既不是该位置的词元，也不是 -100；或者填充被当作学习内容。"
    explained = Said(
        "A causal model predicts each token from those before it: labels are input_ids once more, with -100 where"
        " nothing"
        " is learnt, and the model shifts them itself. A function that tokenizes a text into input_ids and its"
        " summary,"
        " on its own, into labels, asks for word n of the summary at word n of the text, never shows the model a"
        " summary,"
        " and learns padding; that is how encoder-decoder models are fed. Right is:\n"
        '    prompt = tokenizer(row["content"] + "\\n")["input_ids"]\n'
        '    answer = tokenizer(row["summary"], add_special_tokens=False)["input_ids"] + [tokenizer.eos_token_id]\n'
        '    return {"input_ids": prompt + answer, "labels": [-100] * len(prompt) + answer}\n'
        "Padding is the batch's business. Or name the columns, and write no function: data.format.name=template.",
        "因果语言模型由前面的词元预测下一个词元：labels 就是 input_ids 的副本，不学习之处写 -100，移位由模型自己完成。"
        "若把正文分词为 input_ids、把摘要单独分词为 labels，就是要求模型在正文第 n 个词处说出摘要第 n 个词，"
        "模型从未见过摘要，还会学习填充；那是编码器-解码器模型的做法。正确写法：\n"
        '    prompt = tokenizer(row["content"] + "\\n")["input_ids"]\n'
        '    answer = tokenizer(row["summary"], add_special_tokens=False)["input_ids"] + [tokenizer.eos_token_id]\n'
        '    return {"input_ids": prompt + answer, "labels": [-100] * len(prompt) + answer}\n'
        "填充交给组批时处理。也可以不写函数，直接指定列：data.format.name=template。",
    )

    def watch(self, renderer, targets):
        pad: Any = renderer.tokenizer.pad_token_id if renderer else None
        return Simple(
            lambda item, number: fault(*item.example.tokens, pad) if item.example and item.example.tokens else None
        )


def fault(ids: tuple[int, ...], labels: tuple[int, ...], pad: int | None) -> Said | None:
    """What is wrong with the labels of some tokens."""
    if len(ids) != len(labels):
        return Said(
            f"{len(ids)} input_ids and {len(labels)} labels", f"{len(ids)} 个 input_ids，{len(labels)} 个 labels"
        )
    wrong = [at for at, label in enumerate(labels) if label not in (IGNORED, ids[at])]
    if wrong:
        at, total = wrong[0], len(labels)
        if shifted(ids, labels):
            return Said("labels are shifted by one; the model does that", "labels 被移了一位；这由模型自己完成")
        return Said(
            f"{len(wrong)} of {total} labels are not the token there: {labels[at]} at place {at}, which is {ids[at]}",
            f"{total} 个标签中有 {len(wrong)} 个与该位置的词元不同：位置 {at} 的标签为 {labels[at]}，词元为 {ids[at]}",
        )
    padded = sum(1 for _ in takewhile(lambda label: label == pad, reversed(labels)))
    if pad is not None and padded > 1:
        return Said(f"{padded} tokens of padding are learnt", f"{padded} 个填充词元会被学习")
    return None


def shifted(ids: tuple[int, ...], labels: tuple[int, ...]) -> bool:
    """Whether each label is the token after its place."""
    learnt = [(label, after) for label, after in zip(labels, ids[1:], strict=False) if label != IGNORED]
    return bool(learnt) and all(label == after for label, after in learnt)
