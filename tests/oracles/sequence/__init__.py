"""Oracles of the sequence losses."""
