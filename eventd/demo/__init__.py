"""The demonstration: one service of five small functions, one per kind of source.

``code`` is the package that is uploaded as it is; nothing imports it. ``plan`` says what is made.
"""
