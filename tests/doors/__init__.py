"""Tests of service/doors."""
