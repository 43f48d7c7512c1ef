"""MusicGen and Stable Audio Open in MLX."""

from audiogen_mlx import blas

blas.use()  # before anything in this package imports mlx.core
