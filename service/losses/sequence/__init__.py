"""Losses over sequences of tokens, actions and labels."""
