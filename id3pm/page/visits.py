"""Visits: the pictures of each browser tab, kept in memory so that a reload shows them again."""

from __future__ import annotations

import re
import time
from collections import OrderedDict
from collections.abc import Callable

from id3pm.page.history import History

KEPT = 32
"""Number of visits in memory; the one that was unused longest is dropped first."""
FORGOTTEN_AFTER_S = 3600.0
NAME = """() => {
  let name = sessionStorage.getItem('id3pm-visit');
  if (!name) {
    name = Array.from(crypto.getRandomValues(new Uint8Array(16)), (b) => b.toString(16).padStart(2, '0')).join('');
    sessionStorage.setItem('id3pm-visit', name);
  }
  return [name];
}"""
"""Names the visit in the browser: a random number that the tab keeps until it is closed."""
_NAME = re.compile(r"[0-9a-f]{32}")


class Visits:
    """The histories by the names that browsers gave their visits. A browser with that name can see its pictures.

    Args:
        clock: Seconds that never go back.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._visits: OrderedDict[str, tuple[float, History]] = OrderedDict()

    def history(self, name: object) -> History:
        """The pictures of a visit; none of a new one, or where the browser gives no name."""
        now = self._clock()
        for old in [old for old, (seen, _) in self._visits.items() if now - seen > FORGOTTEN_AFTER_S]:
            del self._visits[old]
        if not isinstance(name, str) or not _NAME.fullmatch(name):
            return History()
        _, history = self._visits.pop(name, (now, History()))
        self._visits[name] = now, history
        while len(self._visits) > KEPT:
            self._visits.popitem(last=False)
        return history
