"""``python -m eventd`` is the command ``eventd``."""

from eventd.cli import main

main()
