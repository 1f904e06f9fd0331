"""What a batch tells of its sequences, and where a head reads them."""

import torch
from conftest import make_tiny

from tunesmith.data.batch import pack, pad, share
from tunesmith.data.rendering.render import Tokens
from tunesmith.model.policy import Policy

SEQUENCES = [
    Tokens([n % 300 + 5 for n in range(start, start + size)], [True] * size) for start, size in ((0, 9), (40, 5))
]


def test_the_last_token_of_each_sequence_is_found_however_laid_out():
    for layout in (pack, pad):
        batch = layout(SEQUENCES)
        assert batch.ids.flatten()[batch.last()].tolist() == [tokens.ids[-1] for tokens in SEQUENCES]


def test_texts_that_end_in_what_pads_are_scored_at_the_same_token_whatever_stands_beside_them():
    """Though two of them begin alike to their end, where nothing but padding would be left of the second."""
    policy = Policy(make_tiny(labels=2).eval())
    policy.bare.config.pad_token_id = 1
    texts = [[5, 6, 7, 8, 1], [5, 6, 7, 8, 1], [5, 6, 7, 8, 1, 1, 1], [5, 6, 7, 8, 1, 9, 1], [5, 6, 7, 1], [1, 1]]
    sequences = [Tokens(ids, [False] * len(ids)) for ids in texts]
    assert policy.layout() is share and any(share(sequences).borrowed)
    with torch.no_grad():
        alone = torch.cat([policy.score(pad([one])) for one in sequences])
        for layout in (share, pack, pad):
            assert torch.allclose(policy.score(layout(sequences)), alone, atol=1e-5)
