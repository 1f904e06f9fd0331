"""From examples to tokens: what the template writes, and which of it is learnt."""
