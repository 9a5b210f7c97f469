"""``python -m eventd.cli``."""

from eventd.cli import main

main()
