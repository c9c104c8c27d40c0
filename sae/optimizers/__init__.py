"""How weights are moved by gradients, where that is not torch's own Adam."""
