"""Losses between images: restoration, structure, edges, depth and registration."""
