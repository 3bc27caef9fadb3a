"""Goals that nobody confirms: whether somebody is there to hear them."""

from __future__ import annotations

from genpolicy_deploy.robots.device import LOST_COMMANDS

UNANSWERED = 3  # questions in a row: fewer are noise, or an answer that comes late


class Silence:
    """Withholds goals while nobody answers, so that they do not add up to a jump.

    And then so many more that the joints start again from rest, at the last goal sent.
    """

    def __init__(self) -> None:
        self._unanswered = self._withheld = 0

    def asked(self, answered: bool) -> None:
        """Note whether anybody answered a question."""
        self._unanswered = 0 if answered else self._unanswered + 1
        if self._unanswered >= UNANSWERED:
            self._withheld = LOST_COMMANDS + 1

    def withholds(self) -> bool:
        """Whether the next goal must not be sent; to be asked once for each."""
        if self._withheld == 0:
            return False
        self._withheld -= 1
        return True
