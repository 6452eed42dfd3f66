"""Losses that shape a space of embeddings, where what belongs together lies together."""
