"""What a batch tells of its sequences."""

from tunesmith.data.batch import pack, pad
from tunesmith.data.rendering.render import Tokens

SEQUENCES = [
    Tokens([n % 300 + 5 for n in range(start, start + size)], [True] * size) for start, size in ((0, 9), (40, 5))
]


def test_the_last_token_of_each_sequence_is_found_however_laid_out():
    for layout in (pack, pad):
        batch = layout(SEQUENCES)
        assert batch.ids.flatten()[batch.last()].tolist() == [tokens.ids[-1] for tokens in SEQUENCES]
