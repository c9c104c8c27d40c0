"""Labels that are wrong, or of a whole item when tokens are asked about.

`multiple_instance` and `positive_unlabelled` are torch modules: import them where they run.
"""
