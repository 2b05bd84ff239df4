"""PNG files as they can stand in a page."""

import base64
import io
from pathlib import Path

from PIL import Image


def png_uri(path: Path, largest: int) -> str | None:
    """A PNG of at most `largest` bytes as a data URI; None where there is none that can be read."""
    try:
        if path.stat().st_size > largest:
            return None
        content = path.read_bytes()
        with Image.open(io.BytesIO(content), formats=["PNG"]) as image:
            image.load()
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError):
        return None
    return f"data:image/png;base64,{base64.b64encode(content).decode('ascii')}"
