"""The tokens that end an answer."""

from __future__ import annotations

from typing import Any

from ..data.rendering.turns import end_of_turn


def ends_by(tokenizer: Any) -> set[int]:
    """What a tokenizer calls the end of a text, and what its chat template writes behind an answer: that one is learnt,
    and the tokenizers of base models call another the end."""
    turn = end_of_turn(tokenizer)
    return {tokenizer.eos_token_id, tokenizer.convert_tokens_to_ids(turn) if turn else None} - {None}


def ends_of(model: Any) -> list[int]:
    """What a model's own settings call the end."""
    settings = getattr(model, "generation_config", None)
    said = settings.eos_token_id if settings else None
    return [one for one in (said if isinstance(said, list) else [said]) if one is not None]


def stop_at_turns(model: Any, tokenizer: Any) -> None:
    """Have every engine that reads a model's own settings stop where the chat template ends an answer."""
    known = ends_of(model) or [one for one in [tokenizer.eos_token_id] if one is not None]
    more = sorted(ends_by(tokenizer).difference(known))
    if more and getattr(model, "generation_config", None):
        model.generation_config.eos_token_id = [*known, *more]
