"""Answers as they are kept, and what people say of one, as it comes in: held against the answer that it is about."""

from __future__ import annotations

import asyncio
import logging
import sqlite3
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from .answers import Answers
from .fault import Fault, bad
from .models import Served
from .settings import Serving
from .store import Answered, Store, Verdict, text
from .wire import Chat, Completion, Said

log = logging.getLogger("tunesmith")
Keep = Callable[[list[tuple[dict[str, Any], str | None]]], Awaitable[None]]

LAST = 1 << 31
"""No answer stands behind this place, and SQLite takes no number of any size."""


def keep(store: Store, said: Said) -> dict[str, Any]:
    """Keep one person's verdict. Raises Fault for one that is about nothing."""
    about = there(store, said.response_id, said.index, "response_id")
    made = verdicts(store, said, about)
    if not made:
        raise bad("one of thumb, edit, better_than and tags must be given", "thumb")
    try:
        store.say(made)
    except sqlite3.Error as error:
        full = "full" in str(error)
        why = "the disk is full" if full else f"the file cannot be written ({error})"
        raise Fault(507 if full else 503, f"feedback was not kept: {why}", code="not_kept") from None
    return {"object": "feedback", "response_id": said.response_id, "index": said.index, "kept": len(made)}


def there(store: Store, id: str, place: int, where: str) -> Answered:
    found = store.find(id, place) if place <= LAST else None
    if found is None:
        raise Fault(404, f"no answer {id[:80]} with index {place} is kept here", where, "response_not_found")
    return found


def verdicts(store: Store, said: Said, about: Answered) -> list[Verdict]:
    found: list[tuple[str, Any]] = []
    if said.thumb:
        found.append(("thumb", said.thumb))
    if said.edit is not None:
        if said.edit == about.answer.get("content"):
            raise bad("'edit': is what the answer says already", "edit")
        found.append(("edit", said.edit))
    if said.better_than is not None:
        found.append(("better_than", worse(store, said, about)))
    found += [("tag", tag) for tag in dict.fromkeys(said.tags)]
    return [Verdict(about.id, about.place, kind, value, said.rater or about.asker) for kind, value in found]


def worse(store: Store, said: Said, about: Answered) -> dict[str, Any]:
    """The answer that is the worse one, which must be to the same prompt."""
    other = said.better_than
    id, place = (about.id, other) if isinstance(other, int) else parted(str(other))
    found = there(store, id, place, "better_than")
    if (found.id, found.place) == (about.id, about.place):
        raise bad("'better_than': is the answer itself", "better_than")
    if found.prompt != about.prompt:
        raise bad("'better_than': answers another prompt; two answers to one prompt are compared", "better_than")
    return {"id": id, "place": place}


def parted(name: str) -> tuple[str, int]:
    """A response, and which of its choices: ID or ID#1."""
    id, _, place = name.partition("#")
    return id, int(place) if place.isdigit() and place.isascii() else 0


def keeper(
    settings: Serving,
    store: Store | None,
    who: tuple[Chat | Completion, Served],
    asked: Sequence[dict[str, Any]],
    answers: Answers,
) -> Keep:
    """What keeps answers once they are whole, if anything is kept; `asked` is each one's prompt."""
    said, served = who
    mark = "chatcmpl-" if isinstance(said, Chat) else "cmpl-"
    if settings.log_prompts:
        log.info("serve: asked %s: %s", said.model, text(list(asked)))
    left_out = {"messages", "prompt", "tools", "user", "model", "stream", "stream_options"}
    sampled = {name: value for name, value in vars(said).items() if value is not None and name not in left_out}

    async def keep(spoken: list[tuple[dict[str, Any], str | None]]) -> None:
        messages = [{"role": "assistant", **message} for message, _ in spoken]
        for message, finish in zip(messages, answers.finish, strict=True):
            message |= {"ended": False} if finish == "length" else {}
        if settings.log_prompts:
            log.info("serve: answered %s: %s", said.model, text(messages))
        if store is None:
            return
        rows = [
            Answered(mark + answers.id, n, asked[n], message, served.made_of, sampled, said.user or "")
            for n, message in enumerate(messages)
        ]
        try:
            await asyncio.to_thread(store.answered, rows)
        except sqlite3.Error as error:  # the answer is worth more than the record of it
            log.error("serve: feedback: an answer could not be kept: %s", error)

    return keep
