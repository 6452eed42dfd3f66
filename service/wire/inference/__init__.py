"""The Open Inference Protocol: its JSON and raw bytes to the calls of the native door, and back."""
