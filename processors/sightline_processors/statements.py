"""Says what a database statement does without what it is about: its operations and tables, no literals.

A statement is read from its beginning as far as every dialect would read it alike. Where dialects differ in
what is a literal (a backslash before a quote, a MySQL comment, a string of Oracle's), the reading ends there:
the summary is shorter then, and never holds a part of a literal.

Source: semantic conventions v1.44.0, database-spans, "Generating a summary of the query". Where they differ,
quotes of names are left out, and a table is named once for each operation.
"""

import re
from collections.abc import Iterator
from typing import Final

MAX_SUMMARY_CHARACTERS: Final = 120
MAX_READ_CHARACTERS: Final = 4096
"""What follows in a longer statement is not read: the time is linear in this."""

_NAME: Final = r"""(?:[^\W\d][\w$]*+|"(?:[^"\\]|"")*+"|`[^`\\]*+`|\[[^\]\['"`]*+\])"""

# Every repetition is possessive: none is ever tried again in another way.
_GRAMMAR: Final = r"""
    (?P<skipped>\s++|{comment}|/\*(?!!)(?:[^*/]|\*(?!/)|/(?!\*))*+\*/)
  | (?P<end>[nN]?[qQ]')
  | (?P<literal>'(?:[^'\\]|''|\\[^'])*+'|\d[\w.]*+|\$\d++{literal})
  | (?P<name>{name}(?:\.{name})*+)
  | (?P<mark>[(),;])
  | (?P<ambiguous>['"`]|/\*{ambiguous})
  | (?P<other>[^\s\w'"`\#$\[(),;/-]++|.)
"""
_ANY: Final = re.compile(
    _GRAMMAR.format(
        name=_NAME,
        comment=r"--(?:[ \t][^\r\n]*+)?(?:\r?\n|\Z)",  # in MySQL, `--` is a comment only before white space
        literal="",
        ambiguous=r"|--|[#$\[]",
    ),
    re.VERBOSE | re.DOTALL,
)
_POSTGRESQL: Final = re.compile(
    _GRAMMAR.format(
        name=_NAME,
        comment=r"--[^\r\n]*+",
        literal=r"|\$(?P<tag>(?:[^\W\d]\w*+)?)\$.*?\$(?P=tag)\$",
        ambiguous=r"|\$",
    ),
    re.VERBOSE | re.DOTALL,
)
_LIKE_POSTGRESQL: Final = frozenset({"postgresql", "cockroachdb"})
_LIKE_MYSQL: Final = frozenset({"mysql", "mariadb"})
"""Where double quotes are those of a literal, unless a mode says otherwise."""

_PARTS: Final = re.compile(_NAME)
_BARE: Final = re.compile(r"\w[\w $-]{0,62}")

_CHANGES: Final = frozenset({"INSERT", "UPDATE", "DELETE", "MERGE"})
_DEFINITIONS: Final = frozenset({"ALTER", "CREATE", "DROP"})
_DIRECT: Final = frozenset({"CALL", "COPY", "EXEC", "EXECUTE", "LOCK", "TRUNCATE", "UPDATE"})
"""What they act on follows without another keyword."""
_READING: Final = frozenset({"SELECT", "REPLACE"}) | _CHANGES
_ALONE: Final = frozenset(
    {"ANALYZE", "BEGIN", "COMMIT", "DECLARE", "DESCRIBE", "EXPLAIN", "FETCH", "GRANT", "LOAD", "PRAGMA"}
    | {"REFRESH", "RELEASE", "REVOKE", "ROLLBACK", "SAVEPOINT", "SET", "SHOW", "START", "USE", "VACUUM"}
    | {"VALUES"}
)
"""Operations of which no table is told."""
_OPERATIONS: Final = _READING | _DEFINITIONS | _DIRECT | _ALONE
_OBJECTS: Final = frozenset(
    {"DATABASE", "FUNCTION", "INDEX", "PROCEDURE", "SCHEMA", "SEQUENCE", "TABLE", "TRIGGER", "TYPE", "VIEW"}
)
_BEFORE_CHANGE: Final = frozenset({"(", ")", "AS", "ANALYZE", "EXPLAIN", "VERBOSE"})
"""What stands before an operation that is none of the beginning; `FOR UPDATE`, `DO UPDATE` are none."""
_NOISE: Final = frozenset(
    {"CONCURRENTLY", "EXISTS", "IF", "IGNORE", "INTO", "LATERAL", "LOW_PRIORITY", "NOT", "ONLY", "TABLE"}
    | {"TEMP", "TEMPORARY", "UNLOGGED"}
)
"""What may stand between a keyword and the table that it announces."""
_ENDS_OF_TABLES: Final = frozenset(
    {"EXCEPT", "FETCH", "FOR", "GROUP", "HAVING", "INTERSECT", "LIMIT", "OFFSET", "ON", "ORDER"}
    | {"RETURNING", "SET", "UNION", "VALUES", "WHERE", "WINDOW"}
)

_COMMAND: Final = re.compile(r"\s*+([A-Za-z][A-Za-z0-9._-]{0,30})(?=\s|\Z)")


def statement_summary(text: str, system: str = "") -> str | None:
    """Returns operations and table names of a statement: `INSERT shipping_details SELECT orders`.

    Linear in the first 4,096 characters. Any thread.

    Args:
        text: In SQL or what resembles it; with parameters or literals.
        system: `db.system.name`; tells what certain characters mean. In doubt the summary is shorter.

    Returns:
        At most 120 characters, cut between names; None when the first word is no known operation.
    """
    reading = _Reading(quotes_names=system not in _LIKE_MYSQL)
    for kind, token in _tokens(text, _POSTGRESQL if system in _LIKE_POSTGRESQL else _ANY):
        if kind == "name":
            if not reading.take_name(token):
                break
        else:
            reading.take_other(token)
    return _bounded(reading.words) or None


def command_summary(text: str) -> str | None:
    """Returns the name of a Redis command, in capitals, without its arguments; None where there is none."""
    match = _COMMAND.match(text)
    return match[1].upper() if match else None


def _tokens(text: str, pattern: re.Pattern[str]) -> Iterator[tuple[str, str]]:
    """Yields kind and text of what a statement consists of, up to where its meaning is in doubt."""
    is_cut = len(text) > MAX_READ_CHARACTERS
    text = text[:MAX_READ_CHARACTERS]
    position = 0
    while position < len(text):
        match = pattern.match(text, position)
        if match is None:
            return
        kind = "literal" if match.lastgroup == "tag" else match.lastgroup or ""
        position = match.end()
        if kind in {"end", "ambiguous"} or (is_cut and position == len(text)):
            return
        if kind != "skipped":
            yield kind, match[0]


def _bounded(words: list[str]) -> str:
    """Joins as many words as there is room for."""
    length = 0
    for number, word in enumerate(words):
        length += len(word) + (number > 0)
        if length > MAX_SUMMARY_CHARACTERS:
            return " ".join(words[:number])
    return " ".join(words)


class _Level:
    """What is known between two parentheses.

    Attributes:
        reads: Whether `FROM` and `JOIN` announce tables here; not so in `EXTRACT(YEAR FROM moment)`.
        lists: Whether a comma announces a further table.
        changes: Whether `USING` announces a table.
    """

    __slots__ = ("changes", "lists", "reads")

    def __init__(self, *, reads: bool) -> None:
        self.reads = reads
        self.lists = reads
        self.changes = False


class _Reading:
    """The state of reading one statement.

    Args:
        quotes_names: Whether double quotes are those of a name.
    """

    def __init__(self, *, quotes_names: bool) -> None:
        self.words: list[str] = []
        self._quotes_names = quotes_names
        self._levels = [_Level(reads=False)]
        self._tables: set[str] = set()  # of the operation
        self._previous = ";"
        self._expects_table = False
        self._defines = False

    def take_name(self, token: str) -> bool:
        """Takes a keyword or name; tells whether to read on."""
        word = token.upper()
        previous, self._previous = self._previous, word
        if self._expects_table:
            if word in _NOISE:
                return True
            self._expects_table = False
            if word not in _READING and word != "VALUES":
                self._add_table(token)
                return True
        if previous == ";":
            return self._begin(word)
        if word == "SELECT" or (word in _CHANGES and previous in _BEFORE_CHANGE):
            self._add_operation(word)
        elif self._defines and word in _OBJECTS:
            self.words.append(word)
            self._defines, self._expects_table = False, True
        else:
            self._take_keyword(word, previous)
        return True

    def take_other(self, mark: str) -> None:
        """Takes punctuation or a literal."""
        self._previous = mark
        expected, self._expects_table = self._expects_table, False
        if mark == "(":
            self._levels.append(_Level(reads=expected))
            self._expects_table = expected
        elif mark == ")" and len(self._levels) > 1:
            self._levels.pop()
        elif mark == ",":
            self._expects_table = self._levels[-1].lists
        elif mark == ";":
            self._levels = [_Level(reads=False)]
            self._defines = False

    def _begin(self, word: str) -> bool:
        if word in _OPERATIONS:
            self._add_operation(word)
            return True
        return word == "WITH"

    def _add_operation(self, word: str) -> None:
        self.words.append(word)
        self._tables.clear()
        level = self._levels[-1]
        level.reads = word in _READING
        level.lists = word == "UPDATE"
        level.changes = word in {"DELETE", "MERGE"}
        self._defines = word in _DEFINITIONS
        self._expects_table = word in _DIRECT

    def _take_keyword(self, word: str, previous: str) -> None:
        level = self._levels[-1]
        if word in _ENDS_OF_TABLES:
            level.lists = False
        elif word == "FROM":
            if level.reads and previous != "DISTINCT":  # `a IS DISTINCT FROM b`
                self._expects_table = level.lists = True
        elif word in {"JOIN", "INTO"}:
            self._expects_table = level.reads
        elif word == "USING":
            self._expects_table = level.changes

    def _add_table(self, token: str) -> None:
        name = self._unquoted(token)
        if name is not None and name not in self._tables:
            self._tables.add(name)
            self.words.append(name)

    def _unquoted(self, token: str) -> str | None:
        """Returns a name without quotes; None for what may be a literal or is no usual name."""
        if '"' in token and not self._quotes_names:
            return None
        parts = [part.strip('"`[]') for part in _PARTS.findall(token)]
        return ".".join(parts) if all(_BARE.fullmatch(part) for part in parts) else None
