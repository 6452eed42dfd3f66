"""Oracles of the ranking losses."""
