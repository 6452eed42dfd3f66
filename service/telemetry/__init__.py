"""What is told of requests: metrics, logs, traces, statistics."""
