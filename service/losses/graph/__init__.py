"""Losses of nodes and the edges between them."""
