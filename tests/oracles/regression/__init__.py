"""Oracles of the regression losses."""
