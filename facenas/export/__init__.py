"""Trained networks for use elsewhere: as an ONNX or safetensors file, and by name in timm."""

from facenas.export.files import export_run

__all__ = ["export_run"]
