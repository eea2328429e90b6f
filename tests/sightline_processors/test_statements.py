"""Summaries of statements: operations and tables in every dialect, and never a part of a literal."""

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sightline_processors import statements
from sightline_processors.statements import (
    MAX_SUMMARY_CHARACTERS,
    command_summary,
    statement_summary,
)

SYSTEMS = ["", "postgresql", "mysql", "sqlite", "microsoft.sql_server", "oracle.db", "other_sql"]
SECRET = "zsecret"


@pytest.mark.parametrize(
    ("statement", "summary"),
    [
        # the examples of the conventions
        ("SELECT * FROM wuser_table WHERE username = ?", "SELECT wuser_table"),
        ("SELECT * FROM songs, artists", "SELECT songs artists"),
        (
            "INSERT INTO shipping_details (order_id, address) SELECT order_id, address FROM orders",
            "INSERT shipping_details SELECT orders",
        ),
        (
            "SELECT order_date FROM (SELECT * FROM orders o JOIN customers c ON o.customer_id = c.id)",
            "SELECT SELECT orders customers",
        ),
        # operations
        ("insert into orders (item) values ('a, b') returning id", "INSERT orders"),
        ("UPDATE orders SET item = 'x', count = 2 WHERE id IN (1, 2)", "UPDATE orders"),
        ("DELETE FROM a USING b WHERE a.id = b.id", "DELETE a b"),
        ("MERGE INTO a USING b ON (1 = 1) WHEN MATCHED THEN UPDATE SET x = 1", "MERGE a b"),
        ("WITH gone AS (DELETE FROM a RETURNING id) UPDATE b SET x = 1", "DELETE a UPDATE b"),
        ("SELECT 1 FROM a UNION ALL SELECT 2 FROM b", "SELECT a SELECT b"),
        ("SELECT id FROM a FOR UPDATE", "SELECT a"),
        ("INSERT INTO a VALUES (1) ON CONFLICT (id) DO UPDATE SET x = 1", "INSERT a"),
        ("CREATE UNIQUE INDEX CONCURRENTLY IF NOT EXISTS ix ON orders (id)", "CREATE INDEX ix"),
        ("DROP TABLE IF EXISTS orders", "DROP TABLE orders"),
        ("TRUNCATE TABLE orders", "TRUNCATE orders"),
        ("EXEC refresh_totals 'x'", "EXEC refresh_totals"),
        ("CALL refresh_totals(1)", "CALL refresh_totals"),
        ("EXPLAIN ANALYZE SELECT 1 FROM a", "EXPLAIN SELECT a"),
        ("BEGIN; UPDATE a SET x = 1; COMMIT", "BEGIN UPDATE a COMMIT"),
        ("SET search_path = 'a'", "SET"),
        # what FROM and a comma do not announce
        ("SELECT EXTRACT(YEAR FROM moment) FROM a", "SELECT a"),
        ("SELECT a IS DISTINCT FROM b FROM c", "SELECT c"),
        ("SELECT f(x, y), g FROM a ORDER BY b, c LIMIT 1, 2", "SELECT a"),
        ("SELECT 1 FROM a JOIN b USING (id), c", "SELECT a b c"),
        ("SELECT 1 FROM (a JOIN b ON a.id = b.id)", "SELECT a b"),
        ("SELECT 1 FROM a x JOIN a y ON x.id = y.id", "SELECT a"),
        # names
        ('SELECT 1 FROM "Shop"."Order Items"', "SELECT Shop.Order Items"),
        ("SELECT 1 FROM [dbo].[orders]", "SELECT dbo.orders"),
        ("SELECT 1 FROM `orders`", "SELECT orders"),
        ("SELECT 1 FROM größen", "SELECT größen"),
        # comments
        ("/* traceparent='00-ab' */ SELECT 1 -- it's\nFROM a", "SELECT a"),
        ("-- nothing else", None),
        # no SQL
        ('{"find": "orders", "filter": {"name": "x"}}', None),
        ("", None),
        ("GET secret", None),
    ],
)
def test_a_summary_has_operations_and_tables(statement, summary):
    assert statement_summary(statement) == summary


@pytest.mark.parametrize(
    ("statement", "system", "summary"),
    [
        # a backslash before a quote ends the literal, or does not
        (r"UPDATE a SET x = 'it\' FROM zsecret ' FROM b", "mysql", "UPDATE a"),
        (r"INSERT INTO a SELECT 'c:\\' FROM b", "mysql", "INSERT a SELECT b"),
        # double quotes are those of a string
        ('SELECT 1 FROM "zsecret"', "mysql", "SELECT"),
        ('SELECT 1 FROM "orders"', "postgresql", "SELECT orders"),
        # a comment, or an operator
        ("SELECT 1 # it's\nFROM a WHERE x = ' FROM zsecret '", "mysql", "SELECT"),
        ("SELECT x #>> '{a}' FROM a", "postgresql", "SELECT a"),
        ("SELECT 5--1\nFROM a", "mysql", "SELECT"),
        ("SELECT 5--1\nFROM a", "postgresql", "SELECT a"),
        ("SELECT /*! ' */ 1 FROM zsecret", "mysql", "SELECT"),
        ("SELECT /* a /* b */ FROM zsecret */ 1 FROM a", "postgresql", "SELECT"),
        # quotes of one dialect only
        ("SELECT $tag$ FROM zsecret ' $tag$ FROM a WHERE id = $1", "postgresql", "SELECT a"),
        ("SELECT $tag$ FROM zsecret", "postgresql", "SELECT"),
        ("SELECT q'[it's FROM zsecret ]' FROM a", "oracle.db", "SELECT"),
        ("SELECT ARRAY['a'] FROM a", "postgresql", "SELECT a"),
        ("SELECT 'FROM zsecret", "postgresql", "SELECT"),
    ],
)
def test_reading_ends_where_dialects_differ(statement, system, summary):
    assert statement_summary(statement, system) == summary


def quoted(content):
    """Returns a literal in the ways that dialects and drivers write one."""
    doubled = content.replace("'", "''")
    escaped = content.replace("\\", "\\\\").replace("'", "\\'")
    return st.sampled_from(
        [("", f"'{doubled}'"), ("mysql", f"'{escaped}'"), ("postgresql", f"E'{escaped}'")]
        + ([] if "$" in content else [("postgresql", f"$x${content}$x$")])
    )


contents = st.lists(
    st.sampled_from(
        [
            *(
                "'",
                "''",
                "\\",
                '"',
                "`",
                "--",
                "#",
                "/*",
                "*/",
                "$",
                "$$",
                "(",
                ")",
                ";",
                ",",
                "[",
                "]",
                "\n",
                " ",
            ),
            *(f" FROM {SECRET} ", f" JOIN {SECRET} ", f"; DELETE FROM {SECRET} ", f", {SECRET} "),
        ]
    ),
    max_size=8,
).map("".join)


@given(contents.flatmap(quoted), contents.flatmap(quoted), st.integers(0, 3))
def test_no_part_of_a_literal_is_in_a_summary(one, other, form):
    (system, first), (_, second) = one, other
    # Both in one dialect: each is unambiguous in its own.
    second = second if other[0] == system else "'x'"
    statement = [
        f"SELECT {first}, {second} FROM orders WHERE a = {first}",
        f"INSERT INTO orders VALUES ({first}, {second})",
        f"UPDATE orders SET a = {first}, b = {second} FROM items",
        f"SELECT * FROM orders WHERE a = {first} AND b IN ({second}) UNION SELECT {first} FROM items",
    ][form]
    for read_as in {system} if system else SYSTEMS:
        summary = statement_summary(statement, read_as) or ""
        assert SECRET not in summary
        assert set(summary.split()) <= {"SELECT", "INSERT", "UPDATE", "orders", "items"}


@given(st.text(max_size=200), st.sampled_from(SYSTEMS))
def test_no_text_raises_and_a_summary_is_bounded_and_printable(text, system):
    for statement in (text, f"SELECT {text}", f"SELECT 1 FROM {text}"):
        summary = statement_summary(statement, system)
        assert summary is None or (0 < len(summary) <= MAX_SUMMARY_CHARACTERS and summary.isprintable())


def test_a_long_summary_ends_between_names():
    tables = [f"table_number_{number}" for number in range(40)]
    summary = statement_summary(f"SELECT 1 FROM {', '.join(tables)}")
    assert summary is not None
    assert summary.split() == ["SELECT", *tables[: len(summary.split()) - 1]]
    assert 100 < len(summary) <= MAX_SUMMARY_CHARACTERS


def test_a_name_at_the_end_of_what_is_read_is_left_out(monkeypatch):
    statement = "SELECT 1 FROM orders JOIN customers"
    monkeypatch.setattr(statements, "MAX_READ_CHARACTERS", len(statement) - 3)
    assert statement_summary(statement) == "SELECT orders"


@pytest.mark.parametrize(
    "pattern",
    [
        *(
            "(",
            "'",
            "''",
            "'\\",
            "\\'",
            '"',
            '""',
            "`",
            "[",
            "/*",
            "/**/",
            "--",
            "-- ",
            "$a$",
            "$$",
            "$a$ $b",
        ),
        *("a.", '"a".', "FROM a,", "SELECT (", "((a", "*/", "/", " ", "1", "x'", "[a", "\\\\"),
    ],
)
@pytest.mark.parametrize("system", ["", "postgresql"])
def test_the_time_grows_with_the_length_of_the_statement(pattern, system, monkeypatch):
    monkeypatch.setattr(statements, "MAX_READ_CHARACTERS", 1_000_000)

    def seconds(characters):
        statement = f"SELECT 1 FROM {pattern * (characters // len(pattern))}"
        started = time.process_time()
        statement_summary(statement, system)
        return time.process_time() - started

    # Quadratic time would be 64 times as long, and seconds.
    assert min(seconds(8_000) for _ in range(2)) < 24 * min(seconds(1_000) for _ in range(3)) + 0.02


@pytest.mark.parametrize(
    ("text", "summary"),
    [
        ("SET ? ?", "SET"),
        ("get user:17", "GET"),
        ("FT.SEARCH ? ?", "FT.SEARCH"),
        ("  HGETALL", "HGETALL"),
        ("", None),
        ("17", None),
        ("user:17:token", None),
        ("x" * 40, None),
    ],
)
def test_a_command_is_summed_up_without_its_arguments(text, summary):
    assert command_summary(text) == summary
