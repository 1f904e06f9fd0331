"""chat."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from contextlib import ExitStack, closing
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..errors import RecipeError, Refusal
from .show import line, piece, table
from .train import WORDS, WithSettings

if TYPE_CHECKING:
    from ..serving.talk import Talk
    from ..tuned import Tuned

HELP = """/set shows how answers are written; /set temperature=0.8 top_p=0.9 changes it
/compare TEXT says what greedy, beam search, top-k, top-p and min-p answer; without a text, to your last one
/system TEXT begins a new dialogue under that system prompt; without a text, under none
/switch NAME lets another side answer: base, tuned, or an adapter of --adapter; /base and /tuned do so too
/good, /bad say of the last answer what you think; /edit TEXT what it should have said
/save FILE.jsonl adds the dialogue to a file that train reads; /new forgets it
/tell TEXT says what the model tells of a text; /help, /quit"""


class WithDecoding(WithSettings):
    """A command whose help ends with how answers are written."""

    def settings(self) -> type:
        from ..serving.decoding import Decoding

        return Decoding


def register(app: typer.Typer) -> None:
    app.command(context_settings=WORDS, cls=WithDecoding)(chat)


def chat(
    context: typer.Context,
    run: Annotated[Path, typer.Argument(help="The run's folder.")],
    adapter: Annotated[list[str] | None, typer.Option(help="name=path of an adapter beside it; several times.")] = None,
    feedback: Annotated[Path | None, typer.Option(help="The SQLite file for answers and what you say of them.")] = None,
    rater: Annotated[str, typer.Option(help="Who you are, in the feedback.")] = "",
    system: Annotated[str, typer.Option(help="The system prompt; else what the chat template has of its own.")] = "",
) -> None:
    """Talk to a run's result. Lines come from the terminal or a pipe; /help shows what may be said beside.

    Takes the keys below as key=value or --key value. With --feedback, answers and what you say of them are kept, as a
    server keeps them.
    """
    from ..serving.settings import named_adapters
    from ..serving.store import Store
    from ..serving.talk import Talk, beside
    from ..tuned import load_run

    how, named = decoding(context.args), named_adapters(adapter or ())
    tuned = load_run(run)
    if tuned.scores:
        tuned.refuse_to_write()
    with ExitStack() as stack:
        store = stack.enter_context(closing(Store(feedback))) if feedback else None
        go_on(Talk(tuned, beside(tuned, named), how, store, rater, system))


def go_on(talk: Talk) -> None:
    """Until nothing more is typed."""
    if sys.stdin.isatty():
        line(HELP)
    while (text := typed(f"{talk.side}> ")) != "/quit":
        if text:
            heed(talk, text)


def heed(talk: Talk, text: str) -> None:
    """Do what a line asks for, or answer it; what is wrong with it is said, and the dialogue goes on."""
    from ..data.rendering.tokens import NoTarget
    from ..serving.fault import Fault

    try:
        if asks_what_it_is(talk.tuned, text):
            tell(talk.tuned, text.removeprefix("/tell "))
        elif text.startswith("/"):
            obey(talk, text)
        else:
            speak(talk.say(text))
    except (Refusal, Fault, NoTarget) as error:
        line(str(error))


def obey(talk: Talk, text: str) -> None:
    """Do what a line asks for that begins with a stroke. Raises Refusal, or Fault, where it cannot be."""
    name, _, rest = text.partition(" ")
    if name not in COMMANDS:
        raise RecipeError(f"no such command: {name}; there are {' '.join(COMMANDS)}")
    COMMANDS[name](talk, rest.strip())


# --- commands ---------------------------------------------------------------------------------------------------------


def decoding(words: list[str], now: dict[str, Any] | None = None) -> Any:
    """How answers are written once these words are said, beginning at what was set. Raises RecipeError."""
    from ..config.load import load
    from ..serving.decoding import Decoding

    how = load(Decoding, text=json.dumps(now or {}), words=words).value
    how.refuse()
    return how


def change(talk: Talk, rest: str) -> None:
    from ..config.load import dump

    talk.how = decoding(rest.split(), dump(talk.how))
    line(" ".join(f"{name}={'null' if value is None else value}" for name, value in dump(talk.how).items()))


def compare(talk: Talk, rest: str) -> None:
    asked = [one.content for one in talk.turns if one.role == "user"]
    if not rest and not asked:
        raise RecipeError("there is nothing to answer yet; /compare TEXT")
    table(rest or asked[-1], ["way", talk.side], list(talk.compare(rest).items()))


def switch(talk: Talk, rest: str) -> None:
    talk.switch(rest)


def forget(talk: Talk, rest: str) -> None:
    talk.forget()


def begin(talk: Talk, rest: str) -> None:
    talk.begin(rest)
    line("a new dialogue begins" + (f" under: {rest}" if rest else ""))


def good(talk: Talk, rest: str) -> None:
    talk.rate("up")
    line("kept: liked")


def bad(talk: Talk, rest: str) -> None:
    talk.rate("down")
    line("kept: not liked")


def edit(talk: Talk, rest: str) -> None:
    if not rest:
        raise RecipeError("/edit needs the text that it should have said")
    talk.rate(edit=rest)
    line("the dialogue goes on from that" + ("; kept" if talk.kept else "; it is not kept"))


def save(talk: Talk, rest: str) -> None:
    if not rest.endswith(".jsonl"):
        raise RecipeError("/save needs the name of a file that ends in .jsonl")
    row = json.dumps(talk.row(), ensure_ascii=False)
    try:
        with Path(rest).expanduser().open("a", encoding="utf-8") as out:
            out.write(row + "\n")
    except OSError as error:
        raise RecipeError(f"{rest}: cannot be written ({error.strerror}); name another file") from None
    line(f"{rest}: the dialogue is its last row; data.format.name=messages")


def show_help(talk: Talk, rest: str) -> None:
    line(HELP)


COMMANDS: dict[str, Callable[[Talk, str], None]] = {
    "/set": change,
    "/compare": compare,
    "/switch": switch,
    "/base": lambda talk, _: talk.switch("base"),
    "/tuned": lambda talk, _: talk.switch("tuned"),
    "/new": forget,
    "/system": begin,
    "/good": good,
    "/bad": bad,
    "/edit": edit,
    "/save": save,
    "/help": show_help,
}


# --- telling ----------------------------------------------------------------------------------------------------------


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


def speak(pieces) -> None:
    """Print an answer as it comes."""
    for part in pieces:
        piece(part)
    line()
