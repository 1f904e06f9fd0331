"""serve."""

from pathlib import Path
from typing import Annotated

import typer

from .train import WORDS, WithSettings


class WithServing(WithSettings):
    """A command whose help ends with what may be said of a server."""

    def settings(self) -> type:
        from ..serving.settings import Serving

        return Serving


def register(app: typer.Typer) -> None:
    app.command(context_settings=WORDS, cls=WithServing)(serve)


def serve(
    context: typer.Context,
    model: Annotated[str, typer.Argument(help="A run's folder, a model's, org/name or demo/NAME.")],
    adapter: Annotated[list[str] | None, typer.Option(help="name=path of an adapter beside it; several times.")] = None,
    host: Annotated[str | None, typer.Option(help="The address to listen on; 127.0.0.1 unless given.")] = None,
    port: Annotated[int | None, typer.Option(help="The port; 8000 unless given, 0 takes a free one.")] = None,
    config: Annotated[Path | None, typer.Option(help="A YAML file of the keys below.")] = None,
) -> None:
    """Answer over HTTP as OpenAI's API does, under several adapters at once. Takes key=value of the keys below.

    A key in the environment (TUNESMITH_API_KEY) is asked for, and required for any address but this machine's own.
    With --engine vllm, vLLM's own server answers, on a GPU.
    """
    from ..config.load import load
    from ..serving.serve import serve as served
    from ..serving.settings import Serving

    words = [f"model={model}", *context.args]
    words += [f"host={host}"] if host else []
    words += [f"port={port}"] if port is not None else []
    words += [f"adapters=[{', '.join(adapter)}]"] if adapter else []
    served(load(Serving, config, words).value)
