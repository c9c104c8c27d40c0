"""Machines that work for a store: how far each one's start came, what it has, who is kept out."""
