"""The tokens that are valid now, in one object that everything that checks tokens shares."""

from __future__ import annotations

from attrs import define

from foreman.auth.tokens import Tokens


@define(eq=False)
class AuthPolicy:
    """Holds the valid tokens, which decide who may do what.

    Admission and the routes of jobs share this object, so that the tokens can be replaced while foreman runs.

    :ivar tokens: those that are valid now.
    """

    tokens: Tokens

    def replace(self, tokens: Tokens) -> None:
        """From now on only ``tokens`` are valid; once there has been an admin, only admins may manage models."""
        self.tokens = tokens.replacing(self.tokens)
