"""Labels that are wrong, or of a whole item when tokens are asked about.

`multiple_instance`, `positive_unlabelled` and `scaled_rows` are torch modules: import them where
they run.
"""
