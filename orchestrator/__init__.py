"""What runs where, when, and what it costs. The only place that knows Ray Tune and rich."""
