"""Tests of service/serving."""
