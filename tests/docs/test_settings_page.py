"""The page of settings: it says what the models say, and what it shows works."""

import asyncio
import re

import pytest
import yaml
from asgi import call, http_scope
from fastapi import FastAPI
from tests.docs.settings_page import PAGE, examples, written_page

from sightline.http_exchange import SENT_AT_ONCE_BYTES
from sightline.request_metrics import MAX_PENDING, MAX_UNTRACED
from sightline.settings import PREFIX, Settings, load_settings
from sightline_processors.cardinality.routes import MAX_ROUTES
from sightline_processors.export.processors import ENCODED_AT_ONCE
from sightline_processors.export.spool import MAX_SPOOL_BYTES
from sightline_processors.sla.objectives import MAX_BOUNDARIES
from sightline_processors.sla.objectives_file import parse_catalogue
from sightline_processors.sla.objectives_schema import (
    MAX_OBJECTIVES,
    EntryModel,
    ExcludeModel,
    FileModel,
    MatchModel,
)
from sightline_processors.sla.reload import INTERVAL_SECONDS
from sightline_processors.sla.state import MAX_PROCESSES
from sightline_processors.slo_sampling.entry_point import MAX_SPANS_PER_SECOND
from sightline_processors.slo_sampling.sampler import SPANS_PER_SECOND

BEYOND = {
    "correlation_headers": "cookie",
    "correlation_propagate": "https://orders",
    "trusted_proxies": "10.0.0.0/33",
    "websocket_message_spans": "2",
    "shutdown_timeout": "25h",
    "spool_dir": "spool",
    "cardinality_limit": "1",
    "limit_all_instruments": "all",
    "sla": "500ms@100%",
    "sla_file": "objectives.yaml",
    "sla_exclude": "healthz",
    "slow_request": "0ms",
    "slow_query": "0.1",
    "slow_call": "2d",
    "redact": ",".join(f"key{number}" for number in range(65)),
    "state_dir": "~/state",
    "access_log": "stdout",
}
"""A value of each setting that is outside of what the page says."""


def yaml_blocks():
    return [match[1] for match in re.finditer(r"```yaml\n(.*?)```", PAGE.read_text(), re.DOTALL)]


def test_the_table_of_settings_is_what_the_model_makes():
    assert PAGE.read_text() == written_page(), "run .venv/bin/python tests/docs/settings_page.py"


def test_every_example_is_a_good_value_other_than_the_default(caplog):
    read = load_settings({PREFIX + name.upper(): value for name, value in examples().items()})
    assert caplog.messages == []
    assert examples().keys() == Settings.model_fields.keys()
    assert [name for name, value in read if value == getattr(Settings(), name)] == []


@pytest.mark.parametrize("name", [name for name in Settings.model_fields if name != "probe_token"])
def test_a_value_outside_of_what_the_page_says_is_one_line(caplog, name):
    assert load_settings({PREFIX + name.upper(): BEYOND[name]}) == Settings()
    (line,) = caplog.messages
    assert PREFIX + name.upper() in line


@pytest.mark.parametrize(
    ("page", "text"),
    [
        ("settings", f"holds {MAX_SPOOL_BYTES >> 20} MiB at most"),
        ("settings", f"the files of {MAX_PROCESSES} processes"),
        ("settings", f"up to {MAX_ROUTES:,} routes"),
        ("settings", f"looked at every {INTERVAL_SECONDS:.0f} seconds"),
        ("settings", f"(0 to {MAX_SPANS_PER_SECOND:,.0f}; {SPANS_PER_SECOND:.0f} when empty)"),
        ("fast-path", f"with up to {MAX_PENDING - 1} others"),
        ("fast-path", f"when there are\n{MAX_PENDING}"),
        ("fast-path", f"up to {MAX_UNTRACED} are added up at once"),
        ("fast-path", f"list of their own of up to {ENCODED_AT_ONCE - 1}"),
        ("troubleshooting", f"more than {MAX_BOUNDARIES} boundaries"),
        (
            "../decisions/0008-fast-path",
            f"Every {MAX_PENDING} requests ({MAX_UNTRACED} where none is sampled)",
        ),
        ("../decisions/0008-fast-path", f"up to {SENT_AT_ONCE_BYTES >> 10} KiB"),
    ],
)
def test_bounds_on_the_pages_are_those_of_the_code(page, text):
    assert text in (PAGE.parent / f"{page}.md").read_text()


def test_the_file_of_objectives_on_the_page_is_a_good_one():
    catalogue = parse_catalogue(yaml_blocks()[0].encode(), "objectives.yaml")
    assert catalogue.objective_for("/orders/{order_id}", "POST", ["checkout"]).name == "checkout"
    assert catalogue.objective_for("/orders/{order_id}", "POST").latency_seconds == 0.3
    assert catalogue.objective_for("/exports/{name}", "GET").latency_seconds is None
    assert catalogue.is_excluded_path("/internal/a/b")
    assert catalogue.fails(429)
    assert not catalogue.fails(404)


def test_the_page_lists_every_key_of_the_file_of_objectives():
    section = PAGE.read_text().split("## The file of objectives")[1].split("\n## ")[0]
    listed = re.findall(r"^\| `([^`]+)` \|", section, re.MULTILINE)
    entries = [f"objectives[].{key}" for key in EntryModel.model_fields]
    matches = [f"objectives[].match.{key}" for key in MatchModel.model_fields]
    excludes = [f"exclude.{key}" for key in ExcludeModel.model_fields]
    assert sorted(listed) == sorted({*FileModel.model_fields, *entries, *matches, *excludes} - {"exclude"})
    assert f"| list of entries | {MAX_OBJECTIVES:,} |" in section


def test_the_configuration_file_on_the_page_has_good_options_only(caplog):
    file = yaml.safe_load(yaml_blocks()[1])
    ours = file["instrumentation/development"]["python"]["sightline"]
    assert ours.pop("excluded_urls")
    read = load_settings(file_options=ours)
    assert caplog.messages == []
    assert read.slow_query == 0.25
    assert ours.keys() == read.model_fields_set


def test_the_token_of_probes_is_masked_where_its_header_is_captured(telemetry):
    app = FastAPI()
    telemetry.instrument(app, http_capture_headers_server_request=["x-.*"])
    headers = [(b"x-sightline-probe", b"KDqzUHc7"), (b"x-tenant", b"a")]
    asyncio.run(call(app, http_scope("/", headers=headers)))
    (span,) = telemetry.spans
    assert span.attributes["http.request.header.x-tenant"] == ("a",)
    assert span.attributes["http.request.header.x-sightline-probe"] == ("[REDACTED]",)
