"""Regular expressions for routes, matched in time linear in the text: RE2's syntax and guarantee, without RE2.

Routes run for every request in Python, whose own `re` backtracks: `(/[^/]+)+x` or `.*a.*b` against a hostile path
would hold a worker for seconds. So a pattern becomes a position automaton (Glushkov 1961; Berry and Sethi 1986) and
is run as a DFA whose states are made when first needed (as RE2 does): one dictionary look-up per character.
Matching is of the whole text and yields no groups, which is all a route needs.

What RE2 cannot do (back-references, lookaround) and what this does not do (`\\b`, `\\p`, flags but a leading `(?i)`)
is refused with a `RegexError` that names it.

Invariant: the number of positions is at most POSITIONS_MAX and of cached transitions at most TRANSITIONS_MAX; both
bound memory and the work per character, whatever the pattern and the text.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final, NamedTuple, NoReturn, assert_never

PATTERN_LENGTH_MAX: Final = 1024
POSITIONS_MAX: Final = 500
PIECES_MAX: Final = (
    20_000  # parts built, also those that hold no character: (){9999} nested must not take for ever
)
TRANSITIONS_MAX: Final = 10_000
DEPTH_MAX: Final = 50

Ranges = tuple[tuple[int, int], ...]

_LAST: Final = 0x10FFFF
_DIGIT: Final[Ranges] = ((0x30, 0x39),)
_WORD: Final[Ranges] = ((0x30, 0x39), (0x41, 0x5A), (0x5F, 0x5F), (0x61, 0x7A))
_SPACE: Final[Ranges] = ((0x09, 0x0A), (0x0C, 0x0D), (0x20, 0x20))
_CONTROLS: Final = {"n": 10, "t": 9, "r": 13, "f": 12, "v": 11, "a": 7}
_UNBOUNDED: Final = -1


class RegexError(ValueError):
    """The pattern is not one this engine takes. Says what and where."""


@dataclass(frozen=True, slots=True)
class _Chars:
    """One character out of `ranges`."""

    ranges: Ranges


@dataclass(frozen=True, slots=True)
class _Sequence:
    parts: "tuple[_Node, ...]"


@dataclass(frozen=True, slots=True)
class _Choice:
    options: "tuple[_Node, ...]"


@dataclass(frozen=True, slots=True)
class _Repeat:
    body: "_Node"
    least: int
    most: int  # _UNBOUNDED for none


_Node = _Chars | _Sequence | _Choice | _Repeat


class _Parser:
    """Recursive descent over the pattern: choice of sequences of repeated atoms."""

    def __init__(self, pattern: str) -> None:
        self._text = pattern
        self._at = 0
        self._depth = 0
        self._fold = False

    def parse(self) -> _Node:
        if self._text.startswith("(?i)"):
            self._fold, self._at = True, 4
        node = self._choice()
        if self._at < len(self._text):
            self._refuse("unmatched ')'")
        return node

    def _refuse(self, what: str) -> NoReturn:
        raise RegexError(f"{what} at position {self._at + 1} of {self._text!r}")

    def _peek(self) -> str:
        return self._text[self._at : self._at + 1]

    def _take(self, what: str) -> str:
        character = self._peek()
        if not character:
            self._refuse(what)
        self._at += 1
        return character

    def _choice(self) -> _Node:
        self._depth += 1
        if self._depth > DEPTH_MAX:
            self._refuse(f"groups nested more than {DEPTH_MAX} deep")
        options = [self._sequence()]
        while self._peek() == "|":
            self._at += 1
            options.append(self._sequence())
        self._depth -= 1
        return options[0] if len(options) == 1 else _Choice(tuple(options))

    def _sequence(self) -> _Node:
        parts: list[_Node] = []
        while self._peek() not in {"", "|", ")"}:
            # The whole text is matched, so anchors at the ends of the pattern add nothing; elsewhere they matter.
            leading = self._peek() == "^" and self._at == (4 if self._fold else 0)
            if leading or (self._peek() == "$" and self._at == len(self._text) - 1):
                self._at += 1
            else:
                parts.append(self._repeated(self._atom()))
        return parts[0] if len(parts) == 1 else _Sequence(tuple(parts))

    def _repeated(self, atom: _Node) -> _Node:
        bounds = self._bounds()
        if bounds is None:
            return atom
        if self._peek() == "?":  # reluctant: the same language
            self._at += 1
        if self._peek() == "+":
            self._refuse("possessive repetition is not supported")
        if self._bounds() is not None:
            self._refuse("a repetition repeats nothing (write a group around it)")
        return _Repeat(atom, *bounds)

    def _bounds(self) -> tuple[int, int] | None:
        simple = {"*": (0, _UNBOUNDED), "+": (1, _UNBOUNDED), "?": (0, 1)}.get(self._peek())
        if simple is not None:
            self._at += 1
            return simple
        if self._peek() != "{":
            return None
        end = self._text.find("}", self._at)
        low, comma, high = self._text[self._at + 1 : max(end, 0)].partition(",")
        if not _is_count(low) or (high and not _is_count(high)):
            self._refuse("'{' must begin a repetition such as {2}, {2,} or {2,5} (or be written \\{)")
        least = int(low)
        most = (int(high) if high else _UNBOUNDED) if comma else least
        if most != _UNBOUNDED and most < least:
            self._refuse("a repetition's bounds are the wrong way round")
        self._at = end + 1
        return least, most

    def _atom(self) -> _Node:
        character = self._take("nothing")
        match character:
            case "(":
                return self._group()
            case "[":
                return _Chars(self._set())
            case ".":
                return _Chars(_negate(((10, 10),)))
            case "\\":
                ranges = self._escape()
                return _Chars(self._folded(ranges))
            case "*" | "+" | "?" | "{":
                self._at -= 1
                self._refuse("a repetition repeats nothing")
            case "^" | "$":
                self._at -= 1
                self._refuse("an anchor inside the pattern is not supported (the whole text is matched)")
        return _Chars(self._folded(((ord(character), ord(character)),)))

    def _group(self) -> _Node:
        if self._peek() == "?":
            rest = self._text[self._at :]
            if rest.startswith(("?=", "?!", "?<=", "?<!")):
                self._refuse("lookaround is not supported")
            if rest.startswith("?P="):
                self._refuse("back-references are not supported")
            name = rest[2:] if rest.startswith("?<") else rest[3:] if rest.startswith("?P<") else ""
            if rest.startswith("?:"):
                self._at += 2
            elif name.partition(">")[1] and name.partition(">")[0].isidentifier():
                self._at += rest.index(">") + 1
            else:
                self._refuse("this kind of group is not supported")
        node = self._choice()
        self._take("missing ')'")
        return node

    def _escape(self) -> Ranges:
        character = self._take("a lone backslash")
        classes: dict[str, Ranges] = {"d": _DIGIT, "w": _WORD, "s": _SPACE}
        if character in classes:
            return classes[character]
        if character.lower() in classes:
            return _negate(classes[character.lower()])
        if character in _CONTROLS:
            code = _CONTROLS[character]
        elif character == "x":
            digits = self._text[self._at : self._at + 2]
            if len(digits) != 2 or not all(each in "0123456789abcdefABCDEF" for each in digits):
                self._refuse("\\x needs two hexadecimal digits")
            self._at += 2
            code = int(digits, 16)
        elif character.isdecimal():
            self._refuse("back-references are not supported")
        elif character.isalpha() or not character.isascii():
            self._refuse(f"\\{character} is not supported")
        else:
            code = ord(character)
        return ((code, code),)

    def _set(self) -> Ranges:
        negated = self._peek() == "^"
        self._at += negated
        ranges: list[tuple[int, int]] = []
        first = True
        while (character := self._take("missing ']'")) != "]" or first:
            first = False
            if character == "[" and self._peek() == ":":
                self._refuse("named character classes are not supported")
            low = self._escape() if character == "\\" else ((ord(character), ord(character)),)
            if self._peek() != "-" or self._text[self._at + 1 : self._at + 2] in {"]", ""}:
                ranges += low
                continue
            self._at += 1
            end = self._take("missing ']'")
            high = self._escape() if end == "\\" else ((ord(end), ord(end)),)
            if len(low) != 1 or len(high) != 1 or low[0][0] != low[0][1] or high[0][0] != high[0][1]:
                self._refuse("a range must go from one character to another")
            if high[0][0] < low[0][0]:
                self._refuse("a range's ends are the wrong way round")
            ranges.append((low[0][0], high[0][0]))
        folded = self._folded(tuple(ranges))
        return _negate(folded) if negated else folded

    def _folded(self, ranges: Ranges) -> Ranges:
        """With (?i), ASCII letters of either case (paths and header values are ASCII)."""
        if not self._fold:
            return ranges
        more = list(ranges)
        for first, last, offset in ((0x41, 0x5A, 32), (0x61, 0x7A, -32)):
            for low, high in ranges:
                if max(low, first) <= min(high, last):
                    more.append((max(low, first) + offset, min(high, last) + offset))
        return tuple(more)


def _is_count(text: str) -> bool:
    return 0 < len(text) <= 4 and text.isascii() and text.isdecimal()


def _negate(ranges: Ranges) -> Ranges:
    gaps: list[tuple[int, int]] = []
    start = 0
    for low, high in sorted(ranges):
        if low > start:
            gaps.append((start, low - 1))
        start = max(start, high + 1)
    if start <= _LAST:
        gaps.append((start, _LAST))
    return tuple(gaps)


class _Part(NamedTuple):
    """A piece of the automaton: can it be empty, where it can begin, where it can end (sets of positions, as bits)."""

    nullable: bool
    first: int
    last: int


_EMPTY: Final = _Part(True, 0, 0)


class _State(dict[str, "_State"]):
    """A DFA state: its known transitions, the positions it stands for, and whether the text may end here."""

    __slots__ = ("accepting", "positions")

    def __init__(self, positions: int, accepting: bool) -> None:
        super().__init__()
        self.positions = positions
        self.accepting = accepting


class LinearRegex:
    """A compiled pattern. `matches` is a pure function; the cache of states behind it is bounded.

    Sets of positions are integers, bit n for position n. Position 0 is the beginning of the text; each other one is an
    occurrence of a set of characters in the pattern.
    """

    __slots__ = (
        "_accepting",
        "_follow",
        "_masks",
        "_pieces",
        "_ranges",
        "_start",
        "_states",
        "_transitions",
        "pattern",
    )

    def __init__(self, pattern: str) -> None:
        if len(pattern) > PATTERN_LENGTH_MAX:
            raise RegexError(f"a pattern of {len(pattern)} characters, at most {PATTERN_LENGTH_MAX}")
        self.pattern = pattern
        self._pieces = 0
        self._ranges: list[Ranges] = [()]
        self._follow = [0]
        whole = self._build(_Parser(pattern).parse())
        self._follow[0] = whole.first
        self._accepting = whole.last | (1 if whole.nullable else 0)
        self._forget()

    def __repr__(self) -> str:
        return f"LinearRegex({self.pattern!r})"

    def matches(self, text: str) -> bool:
        """Whether the whole text is in the pattern's language."""
        state = self._start
        for character in text:
            following = state.get(character)
            if following is None:
                following = self._step(state, character)
            if not following.positions:
                return False
            state = following
        return state.accepting

    def _forget(self) -> None:
        self._states: dict[int, _State] = {}
        self._masks: dict[str, int] = {}
        self._transitions = 0
        self._start = self._state(1)

    def _state(self, positions: int) -> _State:
        state = self._states.get(positions)
        if state is None:
            state = self._states[positions] = _State(positions, positions & self._accepting != 0)
        return state

    def _step(self, state: _State, character: str) -> _State:
        if self._transitions >= TRANSITIONS_MAX:
            self._forget()
        mask = self._masks.get(character)
        if mask is None:
            mask = self._masks[character] = self._mask(ord(character))
        reachable = 0
        for position in _bits(state.positions):
            reachable |= self._follow[position]
        following = state[character] = self._state(reachable & mask)
        self._transitions += 1
        return following

    def _mask(self, code: int) -> int:
        """The positions whose set holds this character."""
        mask = 0
        for position, ranges in enumerate(self._ranges):
            if any(low <= code <= high for low, high in ranges):
                mask |= 1 << position
        return mask

    def _build(self, node: _Node) -> _Part:
        self._pieces += 1
        if self._pieces > PIECES_MAX or len(self._ranges) > POSITIONS_MAX:
            raise RegexError(f"the pattern is too large: over {POSITIONS_MAX} characters once repeated")
        match node:
            case _Chars(ranges):
                self._ranges.append(ranges)
                self._follow.append(0)
                here = 1 << (len(self._ranges) - 1)
                return _Part(False, here, here)
            case _Sequence(parts):
                return self._chain(self._build(part) for part in parts)
            case _Choice(options):
                whole = self._build(options[0])
                for option in options[1:]:
                    part = self._build(option)
                    whole = _Part(
                        whole.nullable or part.nullable, whole.first | part.first, whole.last | part.last
                    )
                return whole
            case _Repeat(body, least, most):
                return self._chain(self._copies(body, least, most))
            case _:
                assert_never(node)

    def _copies(self, body: _Node, least: int, most: int) -> Iterator[_Part]:
        """x{2,4} is x x x? x?, x{2,} is x x+, x* is (x+)?."""
        for _ in range(least - (most == _UNBOUNDED and least > 0)):
            yield self._build(body)
        if most == _UNBOUNDED:
            part = self._build(body)
            for position in _bits(part.last):
                self._follow[position] |= part.first
            yield _Part(part.nullable or least == 0, part.first, part.last)
        else:
            for _ in range(most - least):
                part = self._build(body)
                yield _Part(True, part.first, part.last)

    def _chain(self, parts: Iterator[_Part]) -> _Part:
        whole = _EMPTY
        for part in parts:
            for position in _bits(whole.last):
                self._follow[position] |= part.first
            whole = _Part(
                whole.nullable and part.nullable,
                whole.first | part.first if whole.nullable else whole.first,
                whole.last | part.last if part.nullable else part.last,
            )
        return whole


def _bits(positions: int) -> Iterator[int]:
    """The members of a set of positions."""
    while positions:
        lowest = positions & -positions
        yield lowest.bit_length() - 1
        positions ^= lowest
