"""The append-only events of a sweep and the state they fold into: the truth about its trials."""
