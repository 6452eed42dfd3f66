"""Tests of service/document."""
