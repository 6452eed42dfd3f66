"""Losses that compare boxes, axis-aligned or rotated, and the scores of a detector."""
