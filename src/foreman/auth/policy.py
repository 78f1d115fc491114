"""The tokens that are valid now, in one object that is shared by all who check them."""

from __future__ import annotations

from attrs import define

from foreman.auth.tokens import Tokens


@define(eq=False)
class AuthPolicy:
    """Who may do what.

    Admission and the routes of jobs hold this object, so that the tokens can be replaced while foreman runs.

    :ivar tokens: the valid ones.
    """

    tokens: Tokens

    def replace(self, tokens: Tokens) -> None:
        """From now on only ``tokens`` are valid; managing models stays with admins where there ever was one."""
        self.tokens = tokens.replacing(self.tokens)
