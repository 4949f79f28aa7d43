"""Text as part of a subject."""

import re

_OUTSIDE = re.compile(rb"[^A-Za-z0-9_-]")


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
