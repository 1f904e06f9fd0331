"""What a server does, and how much it lets itself be asked."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Annotated, Literal

from annotated_types import Ge, Le

from ..config.record import Count, Natural, Positive, record
from ..errors import BadEnvironment, RecipeError
from ..runs import NAME

HOME = ("127.0.0.1", "::1", "localhost")
KEY = "TUNESMITH_API_KEY"
"""The variable of the environment with the key: a command line can be read by all who use the machine."""
SHORTEST_KEY = 16
HOST = re.compile(r"[a-z0-9.-]+(?::[0-9]{1,5})?")


@record
class Serving:
    """A server: what it answers with, to whom, and within which bounds."""

    model: str
    """A run's folder, a model's, org/name on Hugging Face or demo/NAME."""
    engine: Literal["embedded", "vllm"] = "embedded"
    """Who answers: Tunesmith's own server, or vLLM's, which needs a GPU and takes what it has of these keys."""
    name: str | None = None
    """What clients call it; unless given, the last part of its path."""
    adapters: tuple[str, ...] = ()
    """Adapters beside it, each as name=path of an adapter's folder or a run's."""
    adapter_root: str | None = None
    """A folder whose subfolders, adapters or runs, may be loaded while it serves, by their names."""
    host: str = "127.0.0.1"
    """The address that it listens on; any but this machine's own needs a key in the environment (TUNESMITH_API_KEY)."""
    port: Annotated[int, Ge(0), Le(65535)] = 8000
    """0 takes a free one."""
    allowed_hosts: tuple[str, ...] = ()
    """Names that it may be called by, beside its own address; * for any."""
    allowed_origins: tuple[str, ...] = ()
    """Web pages that may ask it, such as https://example.org."""
    max_rows: Count = 32
    """Answers written at once."""
    queue: Natural = 64
    """Requests that may wait where there is no room for them; more are told to come again (429)."""
    timeout: Positive = 600.0
    """Seconds that a request may take, from when it has come to its last token."""
    max_length: Count | None = None
    """Longest prompt with its answer, in tokens; the model's own length unless it is given."""
    max_tokens: Count = 4096
    """Longest answer that may be asked for, and the one that is meant where nothing is said."""
    max_n: Count = 8
    """Answers to one request."""
    max_body: Count = 4 << 20
    """Bytes of a request."""
    image_hosts: tuple[str, ...] = ()
    """Hosts whose images are fetched where a client gives an address, such as images.example.org; none unless named,
    and never one of this machine or its network. Images within a request need none."""
    max_images: Count = 8
    """Images in a request, of models that see."""
    max_image: Count = 8 << 20
    """Bytes of an image."""
    max_pixels: Count = 1 << 24
    """Pixels of an image."""
    image_timeout: Positive = 10.0
    """Seconds that fetching an image may take."""
    cache_tokens: Count | None = None
    """Tokens that answers being written and their prompts may come to together; what would be more waits. Unless it is
    given, as many as half of the free memory holds once the model is loaded."""
    keep_tokens: Natural = 16384
    """So many tokens of ended rows are remembered, for prompts that begin as they do, and never more than a quarter of
    cache_tokens; 0 for none."""
    feedback: str | None = None
    """An SQLite file in which answers, their prompts and what people say of them are kept; nothing is kept without."""
    log_prompts: bool = False
    """Write prompts and answers into the log."""

    def refuse(self, key: str) -> None:
        """Refuse what is not safe, or cannot be, before anything is loaded. `key` is what the environment holds."""
        if self.host not in HOME and not key:
            raise BadEnvironment(
                f"host: {self.host} can be reached from elsewhere, so a key is required; put one of {SHORTEST_KEY}"
                f" characters or more into {KEY}, or listen on 127.0.0.1"
            )
        if key and len(key) < SHORTEST_KEY:
            raise BadEnvironment(f"{KEY}: a key must have {SHORTEST_KEY} characters or more; take a longer one")
        named_adapters(self.adapters)
        for one in self.image_hosts:
            if not HOST.fullmatch(one):
                raise RecipeError(f"image_hosts: must be names of hosts, such as images.example.org (got {one[:80]})")


def named_adapters(said: Sequence[str]) -> dict[str, str]:
    """Adapters that are given as name=path. Raises RecipeError."""
    found: dict[str, str] = {}
    for one in said:
        name, _, path = one.partition("=")
        if not re.fullmatch(NAME, name) or not path:
            raise RecipeError(f"adapters: must be name=path, the name of letters, digits, . _ - (got {one})")
        if name in found:
            raise RecipeError(f"adapters: {name} is there twice; give each adapter a name of its own")
        found[name] = path
    return found
