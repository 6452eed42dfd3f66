"""Clients in other languages, shipped and generated, against a live server."""
