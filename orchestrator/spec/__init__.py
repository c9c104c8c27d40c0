"""The sweep file: read with its lines, checked whole, and what it means: space, units, faults."""
