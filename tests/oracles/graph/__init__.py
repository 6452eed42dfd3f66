"""Oracles of the graph losses."""
