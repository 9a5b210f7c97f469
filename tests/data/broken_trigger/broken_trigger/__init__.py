"""Raises on import, as a plug-in does whose library is missing."""

raise RuntimeError("libpigeon.so.3 is not installed")
