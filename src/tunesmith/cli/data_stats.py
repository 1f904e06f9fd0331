"""data stats."""

from __future__ import annotations

from typing import Any

import typer

from ..errors import RecipeError
from .data_rows import Base, What, rows_of
from .show import json_out, line, table
from .train import Json


def stats(context: typer.Context, what: What, model: Base = None, as_json: Json = False) -> None:
    """How long what is trained on is, how much of it is learnt, and what each data.max_length would cost."""
    from ..data.stats import ENDLESS, Lengths, measured

    rows = rows_of(what, model, context.args, longest=ENDLESS)
    if rows.renderer is None:
        raise RecipeError("data stats counts tokens: say whose, with --model, or name a recipe")
    lengths = Lengths()
    for some in rows.folded(measured):
        lengths.take(some)
    found = lengths.summary(rows.run.data.max_length)
    json_out(found) if as_json else show(found)


def show(found: dict[str, Any]) -> None:
    learnt = f", {found['target_tokens']:,} of them learnt" if found["target_tokens"] else ""
    left = f"; {found['unusable']:,} rows cannot be used (`tunesmith data lint` says why)" if found["unusable"] else ""
    line(f"{found['rows']:,} rows: {found['sequences']:,} sequences, {found['tokens']:,} tokens{learnt}{left}")
    if not found["sequences"]:
        return
    line("\nlength in tokens")
    widest = max(bar["count"] for bar in found["histogram"])
    for bar in found["histogram"]:
        drawn = "█" * round(50 * bar["count"] / widest) or ("▏" if bar["count"] else "")
        line(f"  {bar['from']:>7,} to {bar['to']:>7,}  {bar['count']:>9,}  {drawn}")
    heads = [*found["percentiles"]]
    table("", ["", *heads], [["length", *(f"{found['percentiles'][head]:,}" for head in heads)]])
    table(
        "",
        ["source", "split", "rows", "sequences", "tokens", "learnt"],
        [
            [s["source"], s["split"], *(f"{s[key]:,}" for key in ("rows", "sequences", "tokens", "target_tokens"))]
            for s in found["sources"]
        ],
    )
    table(
        "What data.max_length costs; time and memory as shares of those without a limit",
        ["data.max_length", "sequences cut", "targets lost", "time", "memory"],
        [
            [
                f"{cut['max_length']:,}" + (" (the recipe's)" if cut["chosen"] else ""),
                f"{cut['cut']:,} ({cut['cut_share']:.1%})",
                f"{cut['lost']:,} ({cut['lost_share']:.1%})",
                f"{cut['time']:.0%}",
                f"{cut['memory']:.0%}",
            ]
            for cut in found["cutoffs"]
        ],
    )
