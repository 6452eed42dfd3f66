"""The Open Inference Protocol: from its JSON and raw bytes to calls of the engine, and back."""
