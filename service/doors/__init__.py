"""Doors: turn each kind of request into calls, and the results into an answer."""
