"""What the tests of spans and of log records in OTLP draw from, and how they compare messages."""

from hypothesis import strategies as st

texts = st.text(max_size=20) | st.text("aé€😀", max_size=50)
scalars = (
    st.booleans()
    | st.integers(-(2**63), 2**63 - 1)
    | st.floats()
    | texts
    | st.binary(max_size=20)
    | st.none()
)
values = scalars | st.lists(scalars, max_size=3) | st.dictionaries(texts, scalars, max_size=2)


def canonical(message):
    """Returns bytes that are equal exactly for equal messages, NaN and unknown fields included."""
    return message.SerializeToString(deterministic=True)


def same(got, want):
    """Asserts that two messages are equal."""
    assert canonical(got) == canonical(want), f"{got} instead of {want}"
