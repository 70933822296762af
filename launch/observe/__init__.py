"""Seeing a running program: its status, and what keeps it from being faster."""
