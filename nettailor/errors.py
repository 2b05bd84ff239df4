"""What the library raises: for what cannot be used, and where training broke down."""

from nettailor.core.errors import NotFiniteError as NotFiniteError
from nettailor.core.errors import UserError as UserError

__all__ = ["NotFiniteError", "UserError"]
