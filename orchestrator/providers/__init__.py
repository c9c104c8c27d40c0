"""Who rents machines out: what they ask for them, and how they say that one is taken away."""
