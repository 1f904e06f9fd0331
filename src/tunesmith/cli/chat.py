"""chat."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from .show import line, piece

if TYPE_CHECKING:
    from ..tuned import Tuned

HELP = (
    "/base asks the model before tuning, /tuned the tuned one, /new forgets the dialogue, /tell TEXT says what it tells"
    " of a text, /quit leaves"
)


def register(app: typer.Typer) -> None:
    app.command()(chat)


def chat(
    run: Annotated[Path, typer.Argument(help="The run's folder.")],
    max_new_tokens: Annotated[int, typer.Option(help="Longest answer, in tokens.", min=1)] = 256,
    temperature: Annotated[
        float, typer.Option(help="0 takes the likeliest word; above it, words are drawn.", min=0)
    ] = 0,
) -> None:
    """Talk to a run's result. Lines come from the terminal or a pipe; /base and /tuned switch sides, /quit leaves."""
    from ..data.example import Message
    from ..tuned import load_run

    tuned, history, base = load_run(run), [], False
    if tuned.scores:
        tuned.refuse_to_write()
    if sys.stdin.isatty():
        line(HELP)
    while (text := typed("base> " if base else "tuned> ")) != "/quit":
        match text:
            case "":
                continue
            case "/base" | "/tuned" | "/new":
                base, history = (base if text == "/new" else text == "/base"), []
            case _ if asks_what_it_is(tuned, text):
                tell(tuned, text.removeprefix("/tell "))
            case _ if text.startswith("/"):
                line(f"no such command: {text}; {HELP}")
            case _:
                history.append(Message("user", text))
                answer = speak(tuned.stream(history, max_new_tokens, temperature, base))
                history.append(Message("assistant", answer))


def asks_what_it_is(tuned: Tuned, text: str) -> bool:
    """Whether a text is to be told of rather than answered."""
    return bool(tuned.tasks) and (text.startswith("/tell ") or (not tuned.writes and not text.startswith("/")))


def tell(tuned: Tuned, text: str) -> None:
    """What a run's result tells of a text: a line a task, or one where there is one."""
    for task in tuned.tasks:
        found = tuned.tell(text).get(task.name, {})
        how = ".3g" if task.kind == "score" else ".1%"
        values = [f"{name} {chance:{how}}" for name, chance in found.items()]
        if values:
            line(("" if len(tuned.tasks) == 1 else f"{task.name}: ") + ", ".join(values))


def typed(mark: str) -> str:
    """The next line of the terminal or the pipe; /quit at its end."""
    if sys.stdin.isatty():
        piece(mark)
    text = sys.stdin.readline()
    return text.strip() if text else "/quit"


def speak(pieces) -> str:
    """Print an answer as it comes, and return the whole of it."""
    said = ""
    for part in pieces:
        piece(part)
        said += part
    line()
    return said
