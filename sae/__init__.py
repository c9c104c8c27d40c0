"""SAE maths: stream, pack, architectures, evaluation, export. No Ray, no rich."""
