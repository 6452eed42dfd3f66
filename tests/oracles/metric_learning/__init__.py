"""Oracles of the metric-learning losses."""
