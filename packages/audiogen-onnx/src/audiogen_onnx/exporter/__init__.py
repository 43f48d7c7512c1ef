"""VampNet's checkpoints made into graphs: all of the package that needs torch or onnx.

Start at `export`, which can be imported without either. (The folder is not called `export`, since
`audiogen_onnx.export` is the function.)
"""
