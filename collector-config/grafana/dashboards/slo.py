"""SLO and error budget: what is promised, what is left of it, and how fast it goes.

Ratios and budgets are those that the rules record, so that this page and an alert show the same number. They
are of all processes of a service together.
"""

from typing import Final

from dashboards.board import Dashboard, Row
from dashboards.panels import Json, Query, stat, timeseries
from dashboards.queries import SERVICE, increase, most, per_second, select, share, total
from dashboards.tables import Column, Label, table
from dashboards.variables import OF_SERVICES, choice, from_prometheus

REQUESTS: Final = "sightline_sla_requests_total"
_BUDGET: Final = "objective:sla_budget:ratio"
_OBJECTIVE: Final = 'sightline_sla_objective=~"$objective"'
_BY: Final = "service_namespace, service_name, deployment_environment_name, sightline_sla_objective"
_SPENT_BY: Final = "http_route, http_request_method, sightline_sla_outcome"
_LEGEND: Final = "{{service_name}} {{sightline_sla_objective}} {{sightline_sla_kind}}"

_BURN_STEPS: Final = ((1.0, "orange"), (6.0, "dark-orange"), (14.4, "red"))
"""1 spends the budget exactly; 6 and 14.4 are where the alerts of 6 h and 1 h page."""
_BUDGET_STEPS: Final = ((0.0, "orange"), (0.25, "green"))
_THREE_DAYS_SECONDS: Final = 3 * 86_400


def _of(metric: str, kind: str = "") -> str:
    return select(metric, _OBJECTIVE, f'sightline_sla_kind="{kind}"' if kind else "")


def _burn_rate(window: str, kind: str = "") -> str:
    """Returns the ratio of bad requests as a multiple of the budget; of both kinds when `kind` is empty."""
    return f"{_of(f'objective:sla_bad:ratio{window}', kind)} / {_of(_BUDGET, kind)}"


def _budget_left(window: str, kind: str = "") -> str:
    return f"1 - {_burn_rate(window, kind)}"


def _time_left(kind: str) -> str:
    """Returns the seconds until the budget of three days is spent, at the burn rate of the last hour."""
    left = f"clamp_min({_budget_left('3d', kind)}, 0)"
    return f"{_THREE_DAYS_SECONDS} * {left} / ({_burn_rate('1h', kind)} > 0)"


def _worst(kind: str) -> tuple[Json, Json]:
    """Returns the least budget and the fastest burn of all chosen objectives."""
    return (
        stat(
            f"Least budget, {kind}",
            f"Of the worst objective, in the chosen window: what is left for {kind}. Overspent below 0.",
            "percentunit",
            Query(f"min({_budget_left('$window', kind)})"),
            steps=_BUDGET_STEPS,
            first="red",
        ),
        stat(
            f"Fastest burn, {kind}",
            f"Highest burn rate of the last hour; {kind}. 1 spends the budget exactly, 14.4 pages.",
            "short",
            Query(f"max({_burn_rate('1h', kind)})"),
            steps=_BURN_STEPS,
        ),
    )


_NOW = Row(
    "Now",
    (
        *_worst("availability"),
        *_worst("latency"),
        stat(
            "Judged",
            "Requests per second that count for an objective.",
            "reqps",
            Query(per_second(REQUESTS, _OBJECTIVE, 'sightline_sla_outcome=~"ok|slow|failed"')),
            first="blue",
        ),
        stat(
            "Excluded",
            "Ratio of requests that no objective judges.",
            "percentunit",
            Query(share(per_second(REQUESTS, 'sightline_sla_outcome="excluded"'), per_second(REQUESTS))),
            first="blue",
        ),
    ),
)

_LABELS: Final = (
    Label("service_namespace", "Namespace"),
    Label("service_name", "Service", "/d/sightline-overview?var-service=${__data.fields.Service}"),
    Label("deployment_environment_name", "Environment"),
    Label("sightline_sla_objective", "Objective"),
)


def _objectives(kind: str, *more: Column) -> Row:
    columns = (
        Column("Burn rate, 1 h", "short", _burn_rate("1h", kind), _BURN_STEPS),
        Column("Budget left", "percentunit", _budget_left("$window", kind), _BUDGET_STEPS, "red"),
        Column("Good", "percentunit", f"1 - {_of('objective:sla_bad:ratio$window', kind)}"),
        Column("Target", "percentunit", f"1 - {_of(_BUDGET, kind)}"),
        Column("3-day budget ends in", "s", _time_left(kind)),
        *more,
    )
    without_kind = tuple(
        Column(each.title, each.unit, total(each.expr, by=_BY, function="max"), each.steps, each.first)
        for each in columns
    )
    return Row(
        f"Objectives: {kind}",
        (
            table(
                f"Budgets, {kind}",
                "In the chosen window, of all processes together. Without traffic there is no value.",
                _LABELS,
                without_kind,
                height=7,
            ),
        ),
    )


_THRESHOLD: Final = Column("Threshold", "s", _of("sightline_sla_threshold_seconds"))


def _burn_graph(window: str, meaning: str) -> Json:
    return timeseries(
        f"Burn rate, {window}",
        f"How fast the budgets go, over the last {window}. {meaning}",
        "short",
        Query(_burn_rate(window), _LEGEND),
        width=12,
        steps=_BURN_STEPS,
    )


_OVER_TIME = Row(
    "Over time",
    (
        _burn_graph("5m", "The short window of the page: it says when it is over."),
        _burn_graph("1h", "The long window of the page: above 14.4, 2 % of a 30-day budget goes in an hour."),
        timeseries(
            "Budget left in three days",
            "The window moves: what was spent three days ago comes back. Below 0 it is overspent.",
            "percentunit",
            Query(_budget_left("3d"), _LEGEND),
            width=12,
            minimum=None,
        ),
        timeseries(
            "Budget left in three days, worst process",
            "As each process counts for itself; shows one bad process among many.",
            "percentunit",
            Query(
                total(
                    select("sightline_sla_budget_remaining_ratio", _OBJECTIVE, 'window="3d"'),
                    by=f"{_BY}, sightline_sla_kind",
                    function="min",
                ),
                _LEGEND,
            ),
            width=12,
            minimum=None,
        ),
    ),
)

_VERDICTS = Row(
    "Verdicts",
    (
        timeseries(
            "Verdicts",
            "Requests per second: ok, slow, failed, or excluded.",
            "reqps",
            Query(per_second(REQUESTS, _OBJECTIVE, by="sightline_sla_outcome"), "{{sightline_sla_outcome}}"),
            stacked=True,
            height=9,
        ),
        table(
            "Where the budget goes",
            "The 20 routes with the most requests that were slow or failed, in the time shown.",
            (
                Label("service_name", "Service"),
                Label(
                    "http_route",
                    "Route",
                    "/d/sightline-route?var-service=${__data.fields.Service}&var-route=${__data.fields.Route}",
                ),
                Label("http_request_method", "Method"),
                Label("sightline_sla_objective", "Objective"),
                Label("sightline_sla_outcome", "Verdict"),
            ),
            (
                Column(
                    "Requests",
                    "short",
                    most(
                        increase(
                            REQUESTS,
                            _OBJECTIVE,
                            'sightline_sla_outcome=~"slow|failed"',
                            by=f"service_name, sightline_sla_objective, {_SPENT_BY}",
                        )
                    ),
                ),
            ),
            width=16,
        ),
    ),
)

DASHBOARD = Dashboard(
    uid="sightline-slo",
    title="SLO and error budget",
    description="Objectives: what is left of each budget, how fast it goes, and which routes spend it.",
    rows=(_NOW, _objectives("availability"), _objectives("latency", _THRESHOLD), _OVER_TIME, _VERDICTS),
    variables=(
        *OF_SERVICES,
        from_prometheus(
            "objective",
            "Objective",
            "sightline.sla.objective: the name in the objectives' file, or default.",
            f"label_values(sightline_sla_target_ratio{{{SERVICE}}}, sightline_sla_objective)",
        ),
        choice("window", "Budget of", "Window in which budgets are counted.", ("3d", "1d", "6h", "1h")),
    ),
    start="now-6h",
)
