"""Oracles of the detection losses."""
