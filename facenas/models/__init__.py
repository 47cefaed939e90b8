"""Architecture -> nn.Module."""

from facenas.models.plain import build_module

__all__ = ["build_module"]
