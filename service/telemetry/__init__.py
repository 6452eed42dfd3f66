"""What operators see of requests: metrics, logs, traces, statistics."""
