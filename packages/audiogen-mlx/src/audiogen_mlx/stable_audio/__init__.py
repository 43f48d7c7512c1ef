"""Stable Audio Open: small, 1.0, and every model of their family."""
