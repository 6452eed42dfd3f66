"""Losses of semantic and instance masks."""
