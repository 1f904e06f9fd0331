"""How the weights of a model are held in memory."""
