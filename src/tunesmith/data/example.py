"""What a row means, whatever file it came from."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Message:
    """One turn of a dialogue."""

    role: str
    """system, user or assistant."""
    content: str
    learn: bool = True
    """Whether an assistant's turn is a target."""


@dataclass(frozen=True)
class Answer:
    """What the assistant says after a prompt."""

    messages: tuple[Message, ...]


@dataclass(frozen=True)
class Example:
    """A prompt and its answers; or a text, which may have a label."""

    prompt: tuple[Message, ...] = ()
    answers: tuple[Answer, ...] = ()
    text: str | None = None
    label: str | None = None
    origin: str = ""
    """Where it was read, as file:line."""

    @property
    def gold(self) -> str | None:
        """What a good model would say: the last turn of the first answer, or the label."""
        return self.answers[0].messages[-1].content if self.answers else self.label


def dialogue(messages: tuple[Message, ...]) -> Example:
    """A dialogue as an example: its last turn is the answer, and all before it the prompt."""
    return Example(prompt=messages[:-1], answers=(Answer(messages[-1:]),))
