"""Metrics, a module of tests for each family."""
