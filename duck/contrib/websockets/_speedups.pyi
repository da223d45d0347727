# The compiled codec has the names of its specification, with the same arguments and results.

from .codec.pure import *  # noqa: F403
