"""What the chat template, and the tokenizer, make of what is said."""

from collections import Counter

from ..example import Message
from ..rendering.answers import WRITTEN
from ..rendering.render import Renderer
from .base import Item, Rule, Said, Simple, Watch, rule


@rule("injection")
class Injection(Rule):
    """A turn holds the text of a special token, which becomes that token."""

    severity = "error"
    reads = "tokens"
    zh = "某一轮的文字中含有特殊词元，会被当作真正的特殊词元。"
    explained = Said(
        "Whoever wrote <|im_end|> into a message ends the turn there and can speak as the system: the roles in the"
        " data"
        " are no longer what they say. In an answer it teaches the model to stop or to begin a turn midway. Remove"
        " it, or"
        " write it otherwise.",
        "消息里的 <|im_end|> 会在该处结束这一轮，其后的文字可以冒充 system，数据中的角色便不再可信；"
        "若在答案里，模型会学着中途停止或另起一轮。请删除或改写。",
    )

    def watch(self, renderer, targets):
        look = injected(renderer)
        return Simple(look if targets != "text" else lambda item, number: look(item) if item.turns else None)


def injected(renderer):
    """A look for special tokens in what people say."""
    pattern = renderer.writer.special

    def look(item: Item, number: int = 0) -> Said | None:
        found = pattern.search(item.text)
        return Said(f"holds the special token {found[0]}", f"含有特殊词元 {found[0]}") if found else None

    return look


@rule("unfaithful-template")
class UnfaithfulTemplate(Rule):
    """The chat template leaves out or rewrites what a turn says."""

    severity = "error"
    reads = "tokens"
    removable = False
    zh = "聊天模板丢弃或改写了某一轮的内容。"
    explained = Said(
        "The model is trained on another text than your data, and nobody is told. White space around a turn does not"
        " count. Usual causes: a template without system turns, or one that drops what was thought in earlier turns."
        " `tunesmith data preview` shows the text; move what is dropped into a turn that is kept, or take another"
        " template.",
        "模型训练所用的文本与你的数据不同，却没有任何提示。首尾空白不计。常见原因：模板不支持 system，"
        "或丢弃先前轮次的思考内容。"
        "`tunesmith data preview` 可以看到实际文本；请把被丢弃的内容移到会保留的轮次，或换用别的模板。",
    )

    def watch(self, renderer, targets):
        return Faithful(renderer) if renderer and targets in WRITTEN else Simple(lambda item, number: None)


ENOUGH = 20
"""Rows of one shape, of a few hundred, that a template is tried on; if it changes none of these, it is trusted with the
others."""


class Faithful(Watch):
    """Has a template write some dialogues of each shape; all of a shape that it changes."""

    def __init__(self, renderer: Renderer) -> None:
        self.renderer = renderer
        self.look = self.changed

    def begin(self) -> None:
        self.kept: Counter[frozenset[tuple[bool | str, ...]]] = Counter()

    def changed(self, item: Item, number: int = 0) -> Said | None:
        example = item.example
        if example is None or item.fault or not example.answers:
            return None
        shape = frozenset([traits(message) for message in item.turns])
        if self.kept[shape] >= ENOUGH:
            return None
        lost = self.renderer.unfaithful(example)
        if lost is None or lost.kind == "trims":  # many do; space around a turn does not count
            self.kept[shape] += 1
            return None
        self.kept[shape] = -(1 << 60)
        return Said(str(lost), lost.zh)


def traits(message: Message) -> tuple[bool | str, ...]:
    """What of a message may matter to a template."""
    content = message.content
    return message.role, not content, bool(message.calls), bool(message.thinking), "<think>" in content
