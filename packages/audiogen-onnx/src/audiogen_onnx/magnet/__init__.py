"""MAGNeT in onnxruntime: text to music by filling masked codes, one codebook after another."""
