"""Tests of examples/, each a real program against a live server."""
