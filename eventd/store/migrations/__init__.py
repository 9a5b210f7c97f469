"""Numbered schema steps, a folder per engine."""
