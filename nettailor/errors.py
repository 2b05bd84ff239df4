"""What the library raises where something that it was given cannot be used."""

from nettailor.core.errors import UserError as UserError

__all__ = ["UserError"]
