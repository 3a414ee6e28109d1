"""Tests of the pulsar twin."""
