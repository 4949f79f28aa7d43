"""Text as part of a subject."""

import re
from typing import Optional

_OUTSIDE = re.compile(rb"[^A-Za-z0-9_-]")
_ESCAPED = re.compile(rb"%([0-9A-Fa-f]{2})")
_BROKEN = re.compile(r"%(?![0-9A-Fa-f]{2})")


def subject_token(text: str) -> str:
    """Writes any text as one token of a subject.

    Bytes outside ``A-Z a-z 0-9 _ -`` become ``%XX``: a key that came from a
    payload may hold dots, spaces or wildcards; a subject made of it must not.
    Empty text stays empty, and no subject has an empty token.

    >>> subject_token("N14228"), subject_token("a.b *"), subject_token("ü")
    ('N14228', 'a%2Eb%20%2A', '%C3%BC')
    """
    escaped = _OUTSIDE.sub(lambda match: b"%%%02X" % match[0][0], text.encode())
    return escaped.decode("ascii")


def from_subject_token(token: str) -> Optional[str]:
    """The text that `subject_token` wrote, or None where it is not of that form. What would
    have been escaped and is not stays as it is.

    >>> from_subject_token("a%2Eb")
    'a.b'
    """
    if _BROKEN.search(token):
        return None
    try:
        return _ESCAPED.sub(lambda match: bytes.fromhex(match[1].decode()), token.encode()).decode()
    except ValueError:
        return None
