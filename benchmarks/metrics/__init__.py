"""Metrics beside the libraries that people use in Python."""
