"""Images as JSON has them: the file in base64, whatever people hold it in. Pillow is not needed."""

from __future__ import annotations

import base64
import io
from pathlib import Path
from typing import Any


def is_image(value: object) -> bool:
    """Whether a value is the file of an image, a path of one, or an image of Pillow."""
    is_pillows = all(hasattr(value, name) for name in ("mode", "getexif", "save"))
    return is_pillows or isinstance(value, bytes | Path)


def text_of(value: Any) -> str:
    """The file in base64; an image of Pillow becomes a PNG, with what its EXIF says."""
    if isinstance(value, bytes | Path):
        content = value if isinstance(value, bytes) else value.read_bytes()
    else:
        file = io.BytesIO()
        value.save(file, "PNG", exif=value.getexif().tobytes())
        content = file.getvalue()
    return base64.b64encode(content).decode()
