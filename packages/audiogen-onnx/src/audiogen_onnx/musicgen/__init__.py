"""MusicGen in onnxruntime: text, melody and style to music."""
