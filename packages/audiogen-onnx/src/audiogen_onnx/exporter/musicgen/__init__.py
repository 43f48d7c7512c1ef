"""MusicGen's checkpoints made into graphs, which needs onnx and no framework. Start at `export`."""
