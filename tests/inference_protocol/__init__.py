"""Clients of others, unmodified, against a real server: `make test-clients` installs them."""
