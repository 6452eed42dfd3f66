"""Evaluations: rows of metrics from any number of workers, kept durably, each counted once."""
