"""VampNet in ONNX: export, and a runtime of onnxruntime and numpy."""
