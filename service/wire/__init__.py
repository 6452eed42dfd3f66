"""Bytes to validated calls, and evaluations to bytes. Knows pydantic, not HTTP."""
