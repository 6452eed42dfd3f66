"""Losses that put the items of a list, or the two of a pair, in the right order."""
