"""x"""
from pathlib import Path
from audiogen_onnx.manifest import Manifest
def convert(source: Path, target: Path, dtype: str) -> Manifest:
    raise NotImplementedError
