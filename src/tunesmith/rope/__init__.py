"""How a model's positions are stretched to texts longer than those that it has seen."""
