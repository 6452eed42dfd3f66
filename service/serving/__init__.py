"""The server around the application: uvicorn, its connections, its workers."""
