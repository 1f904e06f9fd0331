"""A chat template in the language of Ollama's Modelfile.

Most templates put words before and behind what each role says, perhaps with a system's turn of their own where the
dialogue has none, and nothing else. What these words are is read from dialogues that the template writes; then some
others are written both ways and compared. A template that does more is refused, with what differs.
"""

from __future__ import annotations

from dataclasses import dataclass

from ..data.example import Message
from ..data.rendering.dialogue import Refused, Writer
from ..errors import RecipeError

WORD = "word{}word"
TRIED = (
    ("user",),
    ("user", "assistant"),
    ("user", "assistant", "user"),
    ("user", "assistant", "user", "assistant", "user"),
    ("system", "user"),
    ("system", "user", "assistant", "user"),
)


@dataclass(frozen=True)
class Around:
    """What a template puts around turns."""

    begin: str
    """Before everything."""
    unasked: str
    """Instead of a system's turn, where there is none."""
    turns: dict[str, tuple[str, str]]
    """By role, what stands before and behind what is said."""
    answer: str
    """What asks for an answer."""

    def written(self, messages: list[Message]) -> str:
        """A dialogue, up to where the assistant would speak."""
        system = messages[0].role == "system"
        parts = [self.begin, "" if system else self.unasked]
        for message in messages:
            before, behind = self.turns[message.role]
            parts += before, message.content, behind
        return "".join([*parts, self.answer])

    def in_go(self) -> str:
        """The same as a template of Go's text/template."""
        roles = []
        for number, (role, (before, behind)) in enumerate(self.turns.items()):
            test = f"{{{{ {'else if' if number else 'if'} eq .Role {quoted(role)} }}}}"
            roles.append(f"{test}{literal(before)}{{{{ .Content }}}}{literal(behind)}")
        unasked = f'{{{{ if ne (index .Messages 0).Role "system" }}}}{literal(self.unasked)}{{{{ end }}}}'
        every = f"{{{{ range .Messages }}}}{''.join(roles)}{{{{ end }}}}{{{{ end }}}}"
        return literal(self.begin) + (unasked if self.unasked else "") + every + literal(self.answer)


def literal(text: str) -> str:
    """A text that Go's templates, and the Modelfile, read as itself."""
    return f"{{{{ {quoted(text)} }}}}" if text else ""


def quoted(text: str) -> str:
    escapes = {"\\": "\\\\", '"': '\\"', "\n": "\\n", "\t": "\\t", "\r": "\\r"}
    return '"' + "".join(escapes.get(letter, letter) for letter in text) + '"'


def around(writer: Writer) -> Around:
    """What a template puts around turns. Raises RecipeError where it does more than that."""
    pair, three = said("user", "assistant"), said("user", "assistant", "user")
    asked, unasked = writer.text(pair[:1], answer=True), writer.text(pair[:1])
    if not asked.startswith(unasked):
        raise refused("it asks for an answer by writing the turns before differently")
    before, _, behind = unasked.partition(pair[0].content)
    whole = writer.text(three, answer=True)
    if not whole.startswith(unasked) or pair[1].content not in whole:
        raise refused("it writes earlier turns differently when the dialogue goes on")
    lead, _, rest = whole[len(unasked) :].partition(pair[1].content)
    _, _, ended = writer.text(pair).partition(pair[1].content)
    lead_user, _, _ = rest.removeprefix(ended).partition(three[2].content)
    if not before.endswith(lead_user):
        raise refused("the first turn does not begin as later ones do")
    turns = {"user": (lead_user, behind), "assistant": (lead, ended)}
    begin = before[: len(before) - len(lead_user)]
    try:
        with_system = writer.text(said("system", "user"), answer=True)
    except Refused:
        found = Around(begin, "", turns, asked[len(unasked) :])
        tried = [roles for roles in TRIED if roles[0] != "system"]
    else:
        ahead, _, _ = with_system.partition(said("user", at=1)[0].content)
        ahead = ahead.removesuffix(lead_user)
        first, _, last = ahead.partition(said("system")[0].content)
        shared = common_begin(begin, first)
        plain = first.removeprefix(shared)
        found = Around(shared, begin.removeprefix(shared), {"system": (plain, last), **turns}, asked[len(unasked) :])
        tried = list(TRIED)
    for roles in tried:
        messages = said(*roles)
        if found.written(messages) != writer.text(messages, answer=True):
            raise refused(f"a dialogue of {', '.join(roles)} is not its turns one after another")
    return found


def said(*roles: str, at: int = 0) -> list[Message]:
    return [Message(role, WORD.format(number)) for number, role in enumerate(roles, at)]


def common_begin(one: str, other: str) -> str:
    size = 0
    while size < min(len(one), len(other)) and one[size] == other[size]:
        size += 1
    return one[:size]


def refused(why: str) -> RecipeError:
    return RecipeError(
        f"--to ollama: the chat template does more than put words around turns ({why}), which is not written in"
        " Ollama's language here; deliver with --to gguf, whose file holds the template as it is"
    )
