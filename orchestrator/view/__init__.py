"""What a person is shown of a sweep, computed from its log: numbers here, drawing beside it."""
