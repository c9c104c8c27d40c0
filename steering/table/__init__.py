"""Does steering work better than prompting: eight conditions, three metrics, one table."""
