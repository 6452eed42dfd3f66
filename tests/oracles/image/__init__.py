"""Oracles of the image losses."""
