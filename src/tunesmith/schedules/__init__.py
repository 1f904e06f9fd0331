"""How the learning rate changes over a run; a schedule a file, or a family of them."""
