"""eventd: a self-hosted Function Compute (API version 2016-08-15)."""

__version__ = "0.1.0"
