"""What a text costs a model, estimated from above without a tokenizer: replies are cut by it before they are sent.

It bounds o200k_base, a tokenizer that is public, for what people and programs write: prose, identifiers, paths, hashes,
JSON, other scripts, emoji. It is no proof: a single word that nobody would write may cost more than is said here.
"""

from __future__ import annotations

import re
from functools import lru_cache

_PIECE = re.compile(
    r"(?P<word>[A-Z]?[a-z]+|[A-Z]+(?![a-z]))"
    r"|(?P<digits>[0-9]{1,3})"
    r"|(?P<joined> (?=[!-/:-~]))"
    r"|(?P<blank>\s{0,16}[\r\n]+|\s{1,16}(?=\s)|\s)"
    r"|(?P<symbols>[!-/:-@\[-`{-~]+)"
    r"|(?P<other>.)",
    re.DOTALL | re.ASCII,
)
"""Pieces are cut where o200k cuts, or finer: three digits, one word of a CamelCase name, a run of symbols."""
_LETTER_GROUPS = re.compile(r"[aeiouy]+|[^aeiouy]+")
_LONG_WORD = 16
"""Longer ones are hardly words."""
_ALTERNATING = 5
"""From so many letters on, strictly one vowel, one consonant looks drawn by lot."""
_LONG_GROUP = 4
"""So many consonants in a row, too."""

_KNOWN_SYMBOLS = re.compile(
    r'"},{"|":"|","|":\["|"\},"|\{"|":|"\]|"\}|\],"|",|\."|\."|\.\.\.|//|\)\.|\),|->|-{1,16}|={1,16}|.'
)
_RANGES = (
    (0xA0, 3),  # control characters
    (0xC0, 1),
    (0xDF, 2),
    (0x100, 1),  # small Latin letters with accents
    (0x3B1, 2),
    (0x3CA, 1),  # small Greek letters
    (0x410, 2),
    (0x450, 1),  # Russian
    (0x800, 2),
    (0x2000, 3),
    (0x2070, 2),  # dashes and typographic quotes
    (0x2190, 3),
    (0x2300, 2),  # arrows, mathematics
    (0x2500, 3),
    (0x2580, 2),  # boxes
    (0x3000, 3),
    (0x3100, 2),  # kana
    (0x4E00, 3),
    (0xA000, 2),  # Chinese, Japanese
    (0x10000, 3),
    (0x1F000, 4),
    (0x20000, 3),  # emoji
    (0x110000, 4),
)
"""Tokens of one character that is not ASCII, up to the code point."""


@lru_cache(maxsize=512)  # replies are asked for more often than they change, and each is weighed some times
def tokens(text: str) -> int:
    """At most so many o200k tokens, for text as people and programs write it.

    A word that is known to be one token costs 1. Another of n letters costs `1 + (n - 1) // 3`, or two thirds of n when
    nobody would say it. Three digits cost 1, symbols 1 each but for JSON's runs, what is not ASCII 1 to 4 a character.
    """
    total = 0
    for piece in _PIECE.finditer(text):
        said = piece[0]
        match piece.lastgroup:
            case "word":
                total += _word(said)
            case "digits" | "blank":
                total += 1
            case "symbols":
                total += len(_KNOWN_SYMBOLS.findall(said))
            case "joined":  # a space belongs to the word behind it
                pass
            case _:
                total += next(cost for end, cost in _RANGES if ord(said) < end)
    return total


@lru_cache(maxsize=4096)
def _word(word: str) -> int:
    lower, size = word.lower(), len(word)
    if size == 1 or (lower in _WHOLE and not word.isupper()):
        return 1
    groups = _LETTER_GROUPS.findall(lower)
    drawn = (
        size > _LONG_WORD
        or word.isupper()
        or not re.search("[aeiouy]", lower)
        or max(map(len, groups)) >= _LONG_GROUP
        or (size >= _ALTERNATING and len(groups) == size)
    )
    return -(-2 * size // 3) if drawn else max(1 + (size - 1) // 3, 2)


_WHOLE = frozenset(
    """
    about accept account act action active add added address adds after again against agent agents alive all allowed
    already also an analysis and any api app application architecture are argument artifact as ask assert assessment
    async at attempt auth authentication author auto available await back backend background bad balance bare base based
    batch be because been before behavior being below between blocks bool both bound branch brief browser budget build
    but by call caller calls can cancel cannot capture case cause chain change changed changes channel check checked
    checkout checks claim class cleanup clear cli client code com command commands commit complete completed completion
    component components compose confidence config configuration confirm confirmation connection connector console const
    constraints contains content context contract contracts core correct could count counts cover coverage create
    created creates creation criteria critical current cursor cycle dashboard data database date decision def default
    definition delete dependencies dependency depends deployment derived description desktop detail details dev
    developer development dict did dir directory disk display do docker docs document documentation does done duplicate
    during each edge editor effect either else empty end endpoint engine ensure entries entry enum environment error
    errors estimated even event every example examples exception execute execution executor exist existing exists exit
    expected export extension extensions external fact factory fail failed failure false fast feature features feedback
    field fields file files filter find finished first fix fixtures flight float folder for format forward found
    foundation from full function functions future gate generate generated generation get git github given go goal good
    graph green handle handler handling has have head here history host how human id identify if ignore implement
    implementation import imports in include included includes index init initial inline input install instead int
    integration interface internal into invalid inventory is issue issues it its job jobs journal json judge just keep
    key known lane language last later latest lead lease least ledger left len level life like limit line lines list
    listed live load loading local location lock log logging logic long look lower made main management manager many
    mapping mark markdown material max may md members mention merge message messages metadata method methods metrics
    migration minutes missing mock mode model models modified module modules more most move multiple must my name named
    names navigation need needs network never new next no node non none not note notes nothing now number numbers of off
    ok old on once one only open operations operator optional options or order org other out output outside over own
    package packages page parallel parse part participant parts pass passing path paths pattern patterns peer pending
    per performance phase pipeline place plan planning plans point points policy poll present preview primary priority
    private process product production profile progress project prompt protocol provider purpose py python quality query
    queue raise raises random read reads ready real reason record red ref reference references refresh registry relative
    release remove rename replace reply repo report reports repository request required requirements requires research
    resolution resolve resource response rest result results retry return returned returns review risk root round
    routing run runner running runs runtime safe same save saved scenario schema script scripts search seconds section
    security see selection self sent server service services session set settings setup sha share shared shell should
    shows signature silent since single site size slot slots slow small snapshot so some source spawn spec specific
    split src start started starting starts state states status step steps still stop storage stored stories story str
    strategy string structure structured sub success sum summary support surface switch system table tail target task
    tasks team technical template templates terminal test testing tests text than that the their them then there these
    they this those through time timeout timestamp title to token tokens too tool tools total touch tracker tracking
    transaction tree true try tuple two type types under unique unit unknown unless until up update updated updates us
    use used user uses using validate validation validator value values verification verified verify version via view
    views wait warning was wave way we web well were what when where whether which while who whole why will with within
    without words work workflow works workspace world would write writes written wrong yet you
    """.split()  # noqa: SIM905 - a list of 700 quoted words is no easier to read
)
"""Words of our replies and of those who write epics which are one token each, with a capital and behind a space too."""
