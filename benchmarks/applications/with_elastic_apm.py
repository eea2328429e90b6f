"""The bare application with Elastic's agent, configured by `ELASTIC_APM_*`."""

# mypy: disable-error-code="import-not-found"
# The library is installed in the environment of this variant, not in that of the tools.

from bare import app
from elasticapm.contrib.starlette import ElasticAPM, make_apm_client

app.add_middleware(ElasticAPM, client=make_apm_client())
