"""Metrics of classification: counts of decisions, probabilities, and rankings by score."""
