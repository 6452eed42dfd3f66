"""Requests that no one would think of: what the document admits, and what nothing admits."""
