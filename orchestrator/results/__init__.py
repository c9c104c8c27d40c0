"""What came out of a sweep: table, frontier, plots and pages."""
