"""Losses that shape a space of embeddings, in which similar things lie together."""
