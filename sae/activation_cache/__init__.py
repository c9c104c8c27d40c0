"""Activations that were computed once: rounded for storage, kept on the local disk, read again."""
