"""What people said, as rows to learn from, and how far it can be believed."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from ..errors import DataError
from ..files import write
from ..passport import digest
from .store import Answered, Store, Verdict

Kind = Literal["kto", "preference", "sft"]
FLOOD = 0.5
"""The share of all verdicts at which one rater's taste is what would be learnt."""
FEW = 20
"""Of fewer verdicts nobody can have too many."""
Place = tuple[str, int]
Words = str
"""A prompt with what was said to it, by their hash: the same in whichever response they stood."""
Pair = frozenset[Words]


class Votes:
    """What raters say in the end: of each thing the last word of each."""

    def __init__(self) -> None:
        self.last: dict[Any, dict[str | int, Any]] = {}
        self.changed = 0

    def add(self, one: Verdict, about: Any, value: Any) -> None:
        said = self.last.setdefault(about, {})
        who = one.rater or one.number  # two without a name may be two people
        self.changed += said.get(who, value) != value
        said[who] = value

    def agreed(self) -> dict[Any, Any]:
        """What all say of a thing; None where they do not say the same."""
        found = {about: set(said.values()) for about, said in self.last.items()}
        return {about: values.pop() if len(values) == 1 else None for about, values in found.items()}


@dataclass(frozen=True)
class Heard:
    """All that was said, the last word of each rater on each answer."""

    answers: Mapping[Place, Answered]
    said: tuple[Verdict, ...]
    duplicates: int = 0
    """Verdicts that the same rater gave again."""
    changed: int = 0
    """Those that the rater has taken back for another."""
    likes: Mapping[Words, bool | None] = field(default_factory=dict)
    """Whether an answer is liked; None where some like it and others do not."""
    better: Mapping[Pair, Words | None] = field(default_factory=dict)
    """Which of two answers is the better one; None where some turn round what others say."""
    raters: Mapping[str, int] = field(default_factory=dict)

    @property
    def floods(self) -> list[str]:
        """Raters from whom most of it comes; those without a name count as one."""
        total = sum(self.raters.values())
        return [name for name, count in self.raters.items() if total >= FEW and count > FLOOD * total]

    def figures(self) -> dict[str, Any]:
        kinds = Counter(one.kind for one in self.said)
        thumbs = Counter(one.value for one in self.said if one.kind == "thumb")
        models = Counter(self.answers[place(one)].made_of.get("model", "") for one in self.said)
        tags = Counter(one.value for one in self.said if one.kind == "tag")
        return {
            "verdicts": len(self.said), "answers": len({place(one) for one in self.said}), "raters": len(self.raters),
            "liked": thumbs["up"], "disliked": thumbs["down"], "edits": kinds["edit"],
            "comparisons": kinds["better_than"], "tags": dict(tags.most_common()), "models": dict(models.most_common()),
            "duplicates": self.duplicates, "changed": self.changed,
            "conflicts": sum(one is None for one in self.likes.values()),
            "circles": sum(one is None for one in self.better.values()), "floods": self.floods,
        }  # fmt: skip

    def words(self, about: Place) -> Words:
        """An answer with what it was said to."""
        return self.said_to(about, self.answers[about].answer)

    def said_to(self, about: Place, turn: dict[str, Any]) -> Words:
        """What an answer's prompt is, with another turn said to it."""
        return digest([asked(self.answers[about]), turn])


def place(verdict: Verdict) -> Place:
    return verdict.id, verdict.place


def hear(store: Store) -> Heard:
    """All that a store holds."""
    answers, last = store.answers(), {}
    duplicates = changed = 0
    for one in store.verdicts():
        key = (
            one.id,
            one.place,
            one.rater,
            one.kind,
            json.dumps(one.value) if one.kind in ("tag", "better_than") else "",
        )
        if key in last:
            duplicates, changed = duplicates + (last[key].value == one.value), changed + (last[key].value != one.value)
        last[key] = one
    said = tuple(sorted(last.values(), key=lambda one: one.number))
    heard = Heard(answers, said, duplicates, changed, raters=dict(Counter(one.rater for one in said)))
    likes, better = votes(heard)
    changed += likes.changed + better.changed
    return replace(heard, changed=changed, likes=likes.agreed(), better=better.agreed())


def votes(heard: Heard) -> tuple[Votes, Votes]:
    """What is said of answers, and of two beside each other. An edit is liked, and better than what it mends."""
    likes, better = Votes(), Votes()
    for one in heard.said:
        if one.kind == "thumb":
            likes.add(one, heard.words(place(one)), one.value == "up")
        if one.kind == "edit":
            likes.add(one, heard.said_to(place(one), edited(one)), True)
        if one.kind in ("edit", "better_than"):
            more, less = sides(heard, one)
            better.add(one, frozenset((more, less)), more)
    return likes, better


def sides(heard: Heard, one: Verdict) -> tuple[Words, Words]:
    """The better words and the worse ones of an edit or a comparison."""
    mine = heard.words(place(one))
    return (heard.said_to(place(one), edited(one)), mine) if one.kind == "edit" else (mine, heard.words(worse(one)))


def worse(verdict: Verdict) -> Place:
    return verdict.value["id"], verdict.value["place"]


def rows(heard: Heard, kind: Kind, model: str | None = None) -> list[dict[str, Any]]:
    """Rows of one kind, each once; what people do not agree on is left out."""
    makers = {"kto": liked, "preference": preferred, "sft": shown}
    said = [one for one in heard.said if model in (None, heard.answers[place(one)].made_of.get("model"))]
    found: dict[str, dict[str, Any]] = {}
    for row in makers[kind](heard, said):
        found.setdefault(json.dumps(row, sort_keys=True, ensure_ascii=False), row)
    return list(found.values())


def liked(heard: Heard, said: Iterable[Verdict]) -> Iterator[dict[str, Any]]:
    """Answers with whether people liked them; one that was mended was not good as it was, unless they say so."""
    for one in said:
        answer, likes = heard.answers[place(one)], heard.likes.get(heard.words(place(one)), False)
        if one.kind in ("thumb", "edit") and likes is not None:
            yield {**asked(answer), "completion": [answer.answer], "label": likes}
        if one.kind == "edit" and heard.likes[sides(heard, one)[0]]:
            yield {**asked(answer), "completion": [edited(one)], "label": True}


def preferred(heard: Heard, said: Iterable[Verdict]) -> Iterator[dict[str, Any]]:
    """The better answer and the worse one: of two that were compared, and of one that was mended."""
    for one in said:
        if one.kind not in ("edit", "better_than"):
            continue
        (more, less), answer = sides(heard, one), heard.answers[place(one)]
        if more == less or heard.better[frozenset((more, less))] != more:
            continue
        if one.kind == "edit":
            yield {**asked(answer), "chosen": [edited(one)], "rejected": [answer.answer]}
        else:
            yield {**asked(answer), "chosen": [answer.answer], "rejected": [heard.answers[worse(one)].answer]}


def shown(heard: Heard, said: Iterable[Verdict]) -> Iterator[dict[str, Any]]:
    """Dialogues to learn from: answers that were liked, and what others should have said."""
    mended = {heard.words(place(one)) for one in heard.said if one.kind == "edit"}
    for one in said:
        answer, mine = heard.answers[place(one)], heard.words(place(one))
        turn = None
        if one.kind == "thumb" and heard.likes[mine] and mine not in mended:
            turn = answer.answer
        if one.kind == "edit" and heard.likes[sides(heard, one)[0]]:
            turn = edited(one)
        if turn is not None:
            row = asked(answer)
            yield {"messages": [*row.pop("prompt"), turn], **row}


def asked(answer: Answered) -> dict[str, Any]:
    """The prompt as turns; a text that was gone on with is a user's."""
    prompt = answer.prompt
    turns = prompt.get("messages") or [{"role": "user", "content": str(prompt.get("prompt"))}]
    return {"prompt": list(turns), **({"tools": prompt["tools"]} if prompt.get("tools") else {})}


def edited(verdict: Verdict) -> dict[str, Any]:
    return {"role": "assistant", "content": verdict.value}


def export(heard: Heard, kind: Kind, to: Path, model: str | None = None) -> int:
    """Write rows of one kind, and beside them where they come from. Raises DataError where there are none."""
    found = rows(heard, kind, model)
    if not found:
        what = {"kto": "thumbs", "preference": "edits or comparisons", "sft": "liked answers or edits"}[kind]
        raise DataError(f"there are no {what} {f'of {model} ' if model else ''}to export as {kind}; gather some first")
    write(to, "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in found))
    figures = {"kind": kind, "model": model, "rows": len(found), **heard.figures()}
    write(to.with_name(f"{to.name}.provenance.json"), json.dumps(figures, indent=1, ensure_ascii=False) + "\n")
    return len(found)


RECIPES: dict[Kind, tuple[str, str]] = {
    "kto": ("kto", "feedback"),
    "preference": ("dpo", "preference"),
    "sft": ("sft", "messages"),
}
"""Of each kind the objective, and the format of its rows."""


def recipe(kind: Kind, data: Path, model: str) -> str:
    """A recipe that learns from exported rows."""
    objective, format_ = RECIPES[kind]
    lines = [
        "model:", f"  path: {json.dumps(model, ensure_ascii=False)}",
        "data:", f"  path: {json.dumps(str(data), ensure_ascii=False)}", "  format:", f"    name: {format_}",
        "objective:", f"  name: {objective}",
    ]  # fmt: skip
    return "\n".join(lines) + "\n"
