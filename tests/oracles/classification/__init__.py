"""Oracles of the classification losses."""
