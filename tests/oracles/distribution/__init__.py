"""Oracles of the losses between distributions."""
