"""Tests of the server around the application, on a real socket."""
