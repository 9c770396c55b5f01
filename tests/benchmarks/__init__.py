"""Measure gwf side by side with what does the same work by hand; `make bench` prints the table."""
