"""Tokens of MIL text, and a cursor over them whose errors say line, column, what was found and expected."""

import itertools
import re

from ..errors import FormatError
from .scalars import describe

# Every alternative is found in one pass without backtracking over more than its own token, and the last
# one takes any other character: no text can make this slow or stop it. A string without an end runs to
# the end of the text.
_TOKEN = re.compile(
    r"""( [A-Za-z_][A-Za-z0-9_@]*
        | "[^"\\]*(?:\\.[^"\\]*)*"?
        | -?(?:0x[0-9a-fA-F]+(?:\.[0-9a-fA-F]*)?p[+-]?[0-9]+ | [0-9]+(?:\.[0-9]*)?(?:[eE][+-]?[0-9]+)?)
        | -(?:inf|nan)(?![A-Za-z0-9_@])
        | ->
        | [^ \t\r\n]
        )[ \t\r\n]*""",
    re.VERBOSE | re.DOTALL,
)
_SPACE = re.compile(r"\ufeff?[ \t\r\n]*")
IDENTIFIER = re.compile(r"[A-Za-z_][A-Za-z0-9_@]*")
_LETTERS = frozenset("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz_")

MOST_TOLD = 1000  # letters of a message

#: The token after the last one.
END = ""


class Cursor:
    """The tokens of one text and the index of the next one, ``at``."""

    __slots__ = ("at", "text", "tokens")

    def __init__(self, text: str):
        self.text = text
        self.tokens: list[str] = _TOKEN.findall(text, self._start())
        self.tokens += (END, END)  # two: looking one token ahead needs no check
        self.at = 0

    @property
    def token(self) -> str:
        return self.tokens[self.at]

    def accept(self, token: str) -> bool:
        """Go past the next token if it is ``token``."""
        if self.tokens[self.at] == token:
            self.at += 1
            return True
        return False

    def expect(self, token: str, *alternatives: str) -> None:
        """Go past ``token``, which must be next; ``alternatives`` would have been right too."""
        if self.tokens[self.at] != token:
            raise self.unexpected(" or ".join(map(repr, (*alternatives, token))))
        self.at += 1

    def is_name(self) -> bool:
        return self.tokens[self.at][:1] in _LETTERS

    def name(self, what: str) -> str:
        """Go past an identifier; ``what`` it names, for the error if it is none."""
        token = self.tokens[self.at]
        if token[:1] not in _LETTERS:
            raise self.unexpected(what)
        self.at += 1
        return token

    def unexpected(self, expected: str) -> FormatError:
        """The error for a next token that is not ``expected``."""
        return self.error(f"expected {expected}, found {describe(self.token)}")

    def error(self, message: str, at: int | None = None) -> FormatError:
        """``message`` with the line and column of token ``at`` (default: the next)."""
        line, column = self.position(self.at if at is None else at)
        if len(message) > MOST_TOLD:  # of names as long as the text
            message = f"{message[: MOST_TOLD // 2]} ... {message[-MOST_TOLD // 2 :]}"
        return FormatError(f"line {line}, column {column}: {message}")

    def position(self, at: int) -> tuple[int, int]:
        """Line and column, from 1, of token number ``at``: found again, as only errors need them."""
        match = next(itertools.islice(_TOKEN.finditer(self.text, self._start()), at, None), None)
        return position(self.text, match.start() if match else len(self.text))

    def _start(self) -> int:
        match = _SPACE.match(self.text)
        return match.end() if match else 0


def position(text: str, index: int) -> tuple[int, int]:
    """Line and column, from 1, of the character ``index`` of ``text``."""
    return text.count("\n", 0, index) + 1, index - text.rfind("\n", 0, index)
