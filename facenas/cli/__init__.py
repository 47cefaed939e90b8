"""The command line: one file a group of commands."""

from facenas.cli.app import main

__all__ = ["main"]
