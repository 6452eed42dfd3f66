"""Oracles of the mask losses."""
