"""Files among the command's arguments, and the encoding that PowerShell gives them."""

from __future__ import annotations

from typing import Final

UTF_16: Final = (
    "The > of Windows PowerShell writes UTF-16: save the bytes as they came, with curl.exe -o FILE or "
    "Invoke-WebRequest -OutFile FILE, or use PowerShell 7."
)
"""What helps against a file in UTF-16."""

_MARKS: Final = (b"\xff\xfe", b"\xfe\xff")
_LITTLE: Final = (b"{\x00", b"[\x00", b'"\x00')
_BIG: Final = (b"\x00{", b"\x00[", b'\x00"')


def utf_16(content: bytes) -> str | None:
    """Return the text of a file that is JSON in UTF-16, or has its byte order mark; None for any other.

    Args:
        content: What is in the file.
    """
    if content.startswith(_MARKS):
        encoding = "utf-16"
    elif content.startswith(_LITTLE):
        encoding = "utf-16-le"
    elif content.startswith(_BIG):
        encoding = "utf-16-be"
    else:
        return None
    return content.decode(encoding, "replace")
