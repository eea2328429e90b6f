"""Makes the pipeline's own modules importable, and gives every test of this folder the running stack."""

import sys

from .stack_fixture import NATIVE, stack

if str(NATIVE) not in sys.path:
    sys.path.insert(0, str(NATIVE))

from .shop_story import story

__all__ = ["stack", "story"]
