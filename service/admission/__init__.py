"""Whether a request may be worked on: keys, quotas, limits, the account of what it holds."""
