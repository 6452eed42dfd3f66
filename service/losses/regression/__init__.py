"""Losses between estimated numbers, or estimated distributions of numbers, and the numbers observed."""
