"""Redaction of values that must not leave the process.

    from sightline_processors.redaction import Redactor

    redactor = Redactor(extra_keys=("iban", "card_*"))
    redactor.text("password=hunter2 is wrong")  # password=REDACTED is wrong

`keys` says which names are followed by a secret, `detectors` what a secret looks like, `query` and `text`
apply them, `redactor` joins them for attributes, log bodies and headers. `processor` has the processors for
the SDK; it is not imported here, so that this package loads without the SDK.
"""

from sightline_processors.redaction.keys import (
    REDACTED,
    SECRET_QUERY_PARAMETERS,
    SENSITIVE_QUERY_PARAMETERS,
    carries_credential,
    key_patterns,
)
from sightline_processors.redaction.query import redact_query
from sightline_processors.redaction.redactor import Redactor
from sightline_processors.redaction.text import redact_text

__all__ = [
    "REDACTED",
    "SECRET_QUERY_PARAMETERS",
    "SENSITIVE_QUERY_PARAMETERS",
    "Redactor",
    "carries_credential",
    "key_patterns",
    "redact_query",
    "redact_text",
]
