"""Variables at the top of a dashboard. A chosen value is kept when a link leads to another dashboard.

The value of "All" is a pattern and not the list of what there is: a query is short with fifty services, and
finds series without a namespace or environment too.
"""

from typing import Final

from dashboards.panels import PROMETHEUS, Json

ANYTHING: Final = ".*"
SOMETHING: Final = ".+"

Variables = tuple[Json, ...]


def from_prometheus(
    name: str,
    label: str,
    description: str,
    query: str,
    *,
    everything: str | None = ANYTHING,
) -> Json:
    """Returns a variable with the values that a label has in the time shown.

    Args:
        name: As queries call it.
        label: As the reader sees it.
        description: What it chooses.
        query: Of Grafana's Prometheus data source: `label_values(selector, label)`.
        everything: What "All" stands for; None for a variable of exactly one value.
    """
    several = everything is not None
    variable: Json = {
        "type": "query",
        "name": name,
        "label": label,
        "description": description,
        "datasource": PROMETHEUS,
        "query": {"query": query, "refId": f"variable-{name}", "qryType": 1},
        "definition": query,
        "refresh": 2,  # when the time shown changes
        "sort": 1,  # by name
        "multi": several,
        "includeAll": several,
        "options": [],
    }
    if several:
        variable |= {"allValue": everything, "current": {"text": ["All"], "value": ["$__all"]}}
    return variable


_OF_ENVIRONMENT: Final = 'service_name!="",deployment_environment_name=~"$environment"'
_OF_NAMESPACE: Final = f'{_OF_ENVIRONMENT},service_namespace=~"$namespace"'

ENVIRONMENT: Final = from_prometheus(
    "environment",
    "Environment",
    "deployment.environment.name of the services.",
    'label_values({service_name!=""}, deployment_environment_name)',
)
NAMESPACE: Final = from_prometheus(
    "namespace",
    "Namespace",
    "service.namespace of the services; two services of one name are told apart by it.",
    f"label_values({{{_OF_ENVIRONMENT}}}, service_namespace)",
)
SERVICES: Final = from_prometheus(
    "service",
    "Service",
    "service.name; one, several or all.",
    f"label_values({{{_OF_NAMESPACE}}}, service_name)",
    everything=SOMETHING,
)
ONE_SERVICE: Final = from_prometheus(
    "service",
    "Service",
    "service.name; exactly one.",
    f"label_values({{{_OF_NAMESPACE}}}, service_name)",
    everything=None,
)
OF_SERVICES: Final[Variables] = (ENVIRONMENT, NAMESPACE, SERVICES)


def routes(*metrics: str) -> Json:
    """Returns the variable of routes, those of the chosen services that some metrics know."""
    selector = f'{{__name__=~"{"|".join(metrics)}",{_OF_NAMESPACE},service_name=~"$service"}}'
    return from_prometheus(
        "route", "Route", "http.route: the template, not the path.", f"label_values({selector}, http_route)"
    )


def choice(name: str, label: str, description: str, values: tuple[str, ...]) -> Json:
    """Returns a variable with fixed values, of which the first holds at the beginning."""
    return {
        "type": "custom",
        "name": name,
        "label": label,
        "description": description,
        "query": ",".join(values),
        "current": {"text": values[0], "value": values[0]},
        "multi": False,
        "includeAll": False,
        "options": [
            {"text": value, "value": value, "selected": number == 0} for number, value in enumerate(values)
        ],
    }


def text(name: str, label: str, description: str) -> Json:
    """Returns a variable that the reader types, empty at the beginning."""
    empty = {"text": "", "value": ""}
    return {
        "type": "textbox",
        "name": name,
        "label": label,
        "description": description,
        "query": "",
        "current": empty,
        "options": [{**empty, "selected": True}],
    }
