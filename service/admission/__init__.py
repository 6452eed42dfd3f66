"""Whether a request is accepted: keys, quotas, limits, and the account of the resources it holds."""
