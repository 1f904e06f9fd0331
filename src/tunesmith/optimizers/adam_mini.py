"""Adam-mini: one learning rate for what belongs together."""

from .base import Learnt, Optim, adams, groups, optimizer


@optimizer("adam_mini")
class AdamMini(Optim):
    """Adam-mini (Zhang et al. 2024, arXiv:2406.16793): AdamW whose mean of squares is one number for each head of
    queries and keys, for each row of every other matrix, and for each norm: half of AdamW's memory."""

    def make(self, weights, train):
        from ._adam_mini import AdamMini

        def kind(one: Learnt) -> dict[str, int]:
            whole = one.weight.ndim < 2 and not one.name.endswith("bias")
            return {"rows": 0 if whole else one.rows}

        return AdamMini(groups(weights, train, kind), adams(train))
