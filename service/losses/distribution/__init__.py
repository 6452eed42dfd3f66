"""Losses between two distributions: given as probabilities, as parameters, or as samples."""
