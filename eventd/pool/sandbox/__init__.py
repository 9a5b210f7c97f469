"""How function code is kept apart from the machine and from other functions.

``probe`` finds the level that this kernel gives; ``launcher`` is the privileged process that makes
instances; the other modules are its parts. Everything but ``probe`` runs in the launcher, which
sees the standard library only: these modules import nothing but that and one another.
"""
