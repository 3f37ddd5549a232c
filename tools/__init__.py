"""What `make` runs besides the tests: generated files, and the table of faults."""
