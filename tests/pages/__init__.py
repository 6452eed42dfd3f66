"""Tests of service/pages."""
