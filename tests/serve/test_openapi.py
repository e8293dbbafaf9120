import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
from schemathesis import Case, GenerationMode
from schemathesis.specs.openapi.checks import positive_data_acceptance

# A schema can say that bytes are wanted, and not that they must be an audio file, nor that one number bounds another.
INEXPRESSIBLE = [positive_data_acceptance]
GETS = ["/v1/model", "/healthz", "/readyz", "/metrics"]  # nothing can be wrong in what they take


@pytest.mark.parametrize(
    ("method", "path", "mode", "examples"),
    [("POST", path, mode, 36) for path in ("/v1/predict", "/v1/timeline") for mode in GenerationMode]
    + [("GET", path, GenerationMode.POSITIVE, 1) for path in GETS],
)
def test_answers_are_as_the_schema_says(live, method, path, mode, examples):
    schema = schemathesis.openapi.from_url(f"http://127.0.0.1:{live[1]}/openapi.json")
    statuses = []

    @settings(
        max_examples=examples,
        deadline=None,
        database=None,
        derandomize=True,
        suppress_health_check=list(HealthCheck),
    )
    @given(schema[path][method].as_strategy(generation_mode=mode))
    def conforms(case: Case) -> None:
        statuses.append(case.call_and_validate(excluded_checks=INEXPRESSIBLE).status_code)

    conforms()
    assert len(statuses) >= examples
    assert max(statuses) < 500
