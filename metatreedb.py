"""The distribution's name as a module: everything `metatree` makes public, for `from metatreedb import Metatree`."""

from metatree import *  # noqa: F403
