"""Oracles of the losses of generative models."""
