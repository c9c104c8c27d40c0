"""Ray Tune as the executor: a searcher and a scheduler that ask the desk, trials, the driver."""
