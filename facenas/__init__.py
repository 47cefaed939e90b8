"""facenas: find, train and prove face-recognition networks by neural architecture search."""

__version__ = "0.1.0"
