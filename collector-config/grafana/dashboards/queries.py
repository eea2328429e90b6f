"""Texts of PromQL and LogQL that all dashboards share: one way to select, to rate and to divide.

Every selector has the dashboard's variables in it, so that a panel follows them without saying so. Ranges are
Grafana's `$__rate_interval`: at least four export intervals, at any zoom.
"""

from typing import Final

SERVICE: Final = (
    'deployment_environment_name=~"$environment",service_namespace=~"$namespace",service_name=~"$service"'
)
"""Matchers of series and of streams; prometheus.yaml and loki.yaml make labels of these attributes."""
ROUTE: Final = 'http_route=~"$route"'
INTERVAL: Final = "$__rate_interval"


def select(metric: str, *matchers: str, of: str = SERVICE) -> str:
    """Returns a selector of the chosen services.

    Args:
        metric: Name in Prometheus.
        matchers: Further ones, such as `ROUTE`.
        of: Matchers to begin with; empty for what belongs to no service.
    """
    return f"{metric}{{{','.join(part for part in (of, *matchers) if part)}}}"


def per_second(metric: str, *matchers: str, by: str = "", of: str = SERVICE, over: str = INTERVAL) -> str:
    """Returns the rate of a counter or of a histogram's `_count`, summed over all but the labels `by`."""
    return total(f"rate({select(metric, *matchers, of=of)}[{over}])", by=by)


def increase(metric: str, *matchers: str, by: str = "", over: str = "$__range", of: str = SERVICE) -> str:
    """Returns by how much a counter grew in the time shown."""
    return total(f"increase({select(metric, *matchers, of=of)}[{over}])", by=by)


def total(expression: str, by: str = "", function: str = "sum") -> str:
    """Returns an aggregation; over everything when `by` is empty."""
    return f"{function} by ({by}) ({expression})" if by else f"{function}({expression})"


def quantile(
    ratio: float, metric: str, *matchers: str, by: str = "", of: str = SERVICE, over: str = INTERVAL
) -> str:
    """Returns a quantile of a histogram; `metric` is its name without `_bucket`."""
    labels = f"le, {by}" if by else "le"
    buckets = per_second(f"{metric}_bucket", *matchers, by=labels, of=of, over=over)
    return f"histogram_quantile({ratio}, {buckets})"


def average(metric: str, *matchers: str, by: str = "", of: str = SERVICE) -> str:
    """Returns the mean of what a histogram has measured; `metric` is its name without `_sum`."""
    amount = per_second(f"{metric}_sum", *matchers, by=by, of=of)
    return f"{amount} / ({per_second(f'{metric}_count', *matchers, by=by, of=of)} > 0)"


def share(part: str, whole: str) -> str:
    """Returns the ratio of two sums with the same labels.

    It is 0 where nothing of the part was ever counted, and absent, not NaN, where the whole is 0.
    """
    return f"({part} or 0 * {whole}) / ({whole} > 0)"


def or_zero(expression: str) -> str:
    """Returns an expression that is one 0 without labels where it would be absent."""
    return f"({expression}) or on() vector(0)"


def most(expression: str, count: int = 20) -> str:
    """Returns the series with the highest values; for instant queries, as in a range they would change."""
    return f"topk({count}, {expression})"


def streams(*filters: str, of: str = SERVICE) -> str:
    """Returns a LogQL query of the chosen services' records with label filters, each after a `|`."""
    return " | ".join((f"{{{of}}}", *filters))


def lines(*filters: str, by: str = "service_name", function: str = "count_over_time") -> str:
    """Returns how many records a LogQL query finds in each step of the graph."""
    return f"sum by ({by}) ({function}({streams(*filters)} [$__auto]))"
