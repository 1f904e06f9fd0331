"""What is to be learnt: is there anything, does it end, is all of it there."""

from .base import Item, Rule, Said, Simple, rule
from .labels import fault


@rule("empty-target")
class EmptyTarget(Rule):
    """An answer, a text or a label is empty, or only white space."""

    severity = "error"
    zh = "答案、文本或标签为空，或只有空白字符。"
    explained = Said(
        "The model learns to say nothing, or nothing is learnt. Complete the row or remove it.",
        "模型会学到“什么都不说”，或者什么也学不到。请补全或删除该行。",
    )

    def watch(self, renderer, targets):
        return Simple(self.look)

    def look(self, item: Item, number: int = 0) -> Said | None:
        example = item.example
        if example is None:
            return None
        for place, answer in enumerate(example.answers):
            last = answer.messages[-1] if answer.messages else None
            if last is None or not last.calls and (not last.content or last.content.isspace()):
                return Said(*(text.format(place + 1) for text in ("answer {} is empty", "第 {} 个答案为空")))
        if example.answers or example.tokens:
            return None
        if example.text is not None and not example.text.strip():
            return Said("the text is empty", "文本为空")
        if example.label is not None and not example.label.strip():
            return Said("the label is empty", "标签为空")
        return None


@rule("nothing-learnt")
class NothingLearnt(Rule):
    """Every token of the row is masked, or it could not be rendered: nothing of it is learnt."""

    severity = "error"
    reads = "tokens"
    zh = "该行的全部词元都被屏蔽，或无法渲染：其中没有任何内容会被学习。"
    explained = Said(
        "The row costs time and teaches nothing. A prompt as long as data.max_length is the usual cause: raise it, or"
        " shorten the prompt. Others are an objective that does not fit the data, and weights of 0 on every turn.",
        "该行只耗时间，学不到东西。常见原因是提示已占满 data.max_length：请调大它，或缩短提示；"
        "其他原因包括训练目标与数据不符，或每一轮的权重都为 0。",
    )

    def watch(self, renderer, targets):
        looks = {"label": self.classes, "prompts": self.classes, "mixed": self.either}
        return Simple(looks.get(targets, self.look))

    def either(self, item: Item, number: int = 0) -> Said | None:
        """Of answers and labels side by side."""
        answers = item.example and (item.example.answers or item.example.tokens)
        return self.look(item) if answers else self.classes(item)

    def classes(self, item: Item, number: int = 0) -> Said | None:
        """Where a label is learnt, or an answer of the model's own, no token of the row is."""
        return because(item) if item.example and item.fault else None

    def look(self, item: Item, number: int = 0) -> Said | None:
        for tokens in item.tokens:
            if True in tokens.learn:
                return None
        example = item.example
        if example is None or not (item.tokens or item.fault):
            return None
        if example.tokens and fault(*example.tokens, None):
            return None
        return because(item) if item.fault else Said("no token of it is learnt", "没有任何词元会被学习")


def because(item: Item) -> Said:
    why = (item.fault or "").removeprefix(f"{item.row.origin}: ")
    return Said(why, f"没有可学习的内容，原因：{why}")


@rule("no-stop-token")
class NoStopToken(Rule):
    """An answer is learnt whole, and no stop token after it."""

    severity = "error"
    reads = "tokens"
    removable = False
    zh = "答案被完整学习，但其后没有停止词元。"
    explained = Said(
        "The model never learns to stop, and writes on until the limit. The chat template must end an assistant's turn"
        " with a special token such as <|im_end|>, or mark it as generated.",
        "模型学不会停止，会一直写到长度上限。聊天模板必须以 <|im_end|> 之类的特殊词元结束助手的发言，"
        "并将其标为生成内容。",
    )

    def watch(self, renderer, targets):
        return Simple(self.look)

    def look(self, item: Item, number: int = 0) -> Said | None:
        for tokens in item.tokens:
            if tokens.unstopped and not tokens.cut:
                return Said("an answer ends without a stop token", "有答案结尾没有停止词元")
        return None


@rule("truncated-target")
class TruncatedTarget(Rule):
    """Part of what is to be learnt lies past data.max_length and is cut off, the stop token with it."""

    reads = "tokens"
    zh = "要学习的内容有一部分超出 data.max_length，连同停止词元一起被截断。"
    explained = Said(
        "Cut answers teach the model to break off and not to stop. `tunesmith data stats` shows what each"
        " data.max_length"
        " costs; data.truncation=drop leaves such rows out.",
        "被截断的答案会让模型学到半途而止、不会正常停止。`tunesmith data stats` 给出各个 data.max_length 的代价；"
        "data.truncation=drop 会丢弃这样的行。",
    )

    def watch(self, renderer, targets):
        return Simple(self.look)

    def look(self, item: Item, number: int = 0) -> Said | None:
        for tokens in item.tokens:
            if tokens.cut and tokens.lost:
                return Said(
                    f"{tokens.cut} tokens are cut off, {tokens.lost} of them to be learnt",
                    f"截掉了 {tokens.cut} 个词元，其中 {tokens.lost} 个是要学习的",
                )
        return None
