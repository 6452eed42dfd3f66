"""Requests that no one would think of, valid and invalid ones."""
