"""How gradients become steps; an optimizer a file, or a family of them."""
