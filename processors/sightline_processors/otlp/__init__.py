"""OTLP protobuf written without a protobuf library: spans and log records to bytes, bytes to requests.

`spans` and `logs` encode one item, a log record at the moment at which it is emitted; `requests` only joins
such items, in the export thread. What is written parses to the messages of the stock encoder, field by field.

Nothing here raises for what an application puts into telemetry, short of an exhausted stack, and no
item is lost. Where the stock encoder raises, or writes what no reader accepts, the item stays and the value
becomes:

| value | written as |
|---|---|
| text with lone surrogates | the text with `?` for each of them |
| integer outside of 64 bits | its decimal digits as text; hexadecimal beyond 2,048 bits |
| any other type | `str(value)`, at most 8,192 characters; `<unprintable>` where that raises |
| nested deeper than 90 messages (45 lists, 30 mappings) | `[cut]` in place of what is deeper |
| more than 65,536 values in one attribute | `[cut]` in place of the rest |
| key that is no text | `str(key)` |
| time or count out of range | the nearest that fits; left out where it is no number |
| ID that is too long | its lowest bits |

The stock encoder leaves out the trace state of links, and so does this one.
"""
