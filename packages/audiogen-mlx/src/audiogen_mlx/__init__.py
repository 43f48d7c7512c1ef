"""MusicGen and Stable Audio Open in MLX."""
