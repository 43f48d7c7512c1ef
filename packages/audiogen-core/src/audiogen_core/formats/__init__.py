"""Readers of the file formats that weights come in: numpy only, and nothing in a file can run."""
