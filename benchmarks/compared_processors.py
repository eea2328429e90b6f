"""The process that measures the processors: all of them in turn, with and without.

    python -m benchmarks.compared_processors ROUNDS

prints the costs as one line of JSON.
"""

import json
import logging
import sys
from dataclasses import asdict
from typing import Final

from benchmarks import compared_measurements, compared_requests, compared_spans
from benchmarks.comparisons import costs

PARTS: Final = (*compared_measurements.PARTS, *compared_spans.PARTS, *compared_requests.PARTS)

if __name__ == "__main__":
    logging.getLogger("sightline").setLevel(logging.CRITICAL)  # attribute sets overflow here on purpose
    print(json.dumps([asdict(each) for each in costs(PARTS, int(sys.argv[1]))]))
