"""Answers beside answers."""

from ..item import Item, written
from .base import Rule, Said, Simple, rule


@rule("same-pair")
class SamePair(Rule):
    """The chosen answer equals the rejected one."""

    severity = "error"
    zh = "被选中的答案与被拒绝的答案相同。"
    explained = Said(
        "Nothing is to be preferred: such a pair pushes the model both ways at once. Remove it.",
        "没有优劣可言：这样的一对会同时把模型推向两个方向。请删除。",
    )

    def watch(self, renderer, targets):
        return Simple(self.look)

    def look(self, item: Item, number: int = 0) -> Said | None:
        if item.example is None or len(item.example.answers) < 2:
            return None
        said = [written(answer.messages).strip() for answer in item.example.answers]
        if len(set(said)) < len(said):
            return Said("chosen and rejected are the same", "chosen 与 rejected 相同")
        return None
