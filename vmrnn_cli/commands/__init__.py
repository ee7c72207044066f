"""The commands: each parses, calls and prints."""

from .options import DEBUG

__all__ = ["DEBUG"]
