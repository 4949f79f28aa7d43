"""The mood of a text, from the words in it.

A small lexicon, with what changes a word's weight around it: negation ("not
good"), emphasis ("very good", "GOOD", "good!!!"), and the emoji that do without
words. Letters are compared without case, accents and the forms that Unicode has
for the same letter.
"""

import re
import unicodedata

LEXICON = {
    "amazing": 1.0, "awesome": 1.0, "beautiful": 0.8, "best": 0.9, "comfortable": 0.6, "easy": 0.5,
    "excellent": 1.0, "fast": 0.5, "good": 0.6, "great": 0.8, "happy": 0.7, "like": 0.4, "love": 0.9,
    "nice": 0.5, "perfect": 1.0, "quiet": 0.4, "recommend": 0.8, "sturdy": 0.6, "works": 0.4,
    "awful": -1.0, "bad": -0.7, "broke": -0.8, "broken": -0.8, "cheap": -0.4, "defective": -1.0,
    "disappointed": -0.8, "disappointing": -0.8, "hate": -0.9, "horrible": -1.0, "leaks": -0.7,
    "late": -0.4, "loud": -0.4, "noisy": -0.5, "poor": -0.6, "refund": -0.6, "return": -0.4,
    "returned": -0.5, "slow": -0.5, "terrible": -1.0, "useless": -0.9, "waste": -0.8, "worst": -1.0,
    "😀": 0.8, "😊": 0.7, "😍": 1.0, "👍": 0.8, "❤": 0.9, "😡": -1.0, "😞": -0.7, "👎": -0.8, "💩": -1.0,
}
NEGATIONS = frozenset(("not", "no", "never", "isn't", "wasn't", "don't", "doesn't", "didn't", "can't", "won't"))
EMPHASIS = {"very": 1.5, "really": 1.4, "so": 1.3, "extremely": 1.8, "totally": 1.4, "quite": 1.1, "slightly": 0.6}
STOP = frozenset(
    "about after again also been before bought came could even from have just more much only than that their them "
    "then there these they this very want were what when which will with would your product after days week weeks".split()
)

#: Words that a negation reaches.
NEGATION_REACH = 3

_WORD = re.compile(r"[^\W\d_]+(?:'[^\W\d_]+)?|[😀😊😍👍❤😡😞👎💩]")


def words(text):
    """The words as they are written, in one Unicode form and without accents."""
    text = unicodedata.normalize("NFKD", text.replace("’", "'"))
    return _WORD.findall("".join(c for c in text if not unicodedata.combining(c)))


def mood(text):
    """Between -1 (fury) and 1 (delight); 0 where no word says anything."""
    total, weight, negated, emphasis = 0.0, 0, 0, 1.0
    for word in words(text):
        lower = word.casefold()
        if lower in NEGATIONS:
            negated = NEGATION_REACH
            continue
        if lower in EMPHASIS:
            emphasis *= EMPHASIS[lower]
            continue
        if (value := LEXICON.get(lower)) is not None:
            if len(word) > 2 and word.isupper():
                emphasis *= 1.3
            total += value * emphasis * (-0.7 if negated else 1.0)
            weight += 1
        negated, emphasis = max(0, negated - 1), 1.0
    if not weight:
        return 0.0
    loud = 1 + 0.1 * min(3, text.count("!"))
    return max(-1.0, min(1.0, total / weight * loud))


def topics(text):
    """What a complaint is about: its longer words that carry no mood themselves."""
    lower = (word.casefold() for word in words(text))
    return {w for w in lower if len(w) > 3 and w not in LEXICON and w not in STOP and w not in NEGATIONS}
