"""What a forked process begins anew: locks of its parent's threads, counts that the parent exports."""

import os
from collections.abc import Callable
from typing import Any, TypeVar
from weakref import WeakKeyDictionary

from sightline_processors.report import report

_Owner = TypeVar("_Owner")

_renewals: "WeakKeyDictionary[Any, Callable[[Any], None]]" = WeakKeyDictionary()


def renew_in_children(owner: _Owner, renew: Callable[[_Owner], None]) -> None:
    """Has an object renewed in every process that is forked from this one, as long as it lives.

    Args:
        owner: Is not kept alive.
        renew: A function of its class; called in the child, where no other thread runs.
    """
    _renewals[owner] = renew


def _renew_all() -> None:
    for owner, renew in list(_renewals.items()):
        try:
            renew(owner)
        except Exception as error:  # noqa: BLE001  fail open: the others are renewed
            report("fork", "could not separate a forked process from its parent", error=error)


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_renew_all)
