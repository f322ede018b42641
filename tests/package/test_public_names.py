"""The package's public names."""

import inspect
import re
from importlib.metadata import entry_points, version
from pathlib import Path

import pytest

import observability
from observability import instrumentor, testing

# The contract's names; ListenError is what a used port raises, for those who say so in their own words.
NAMES = {
    "AioHideExceptions",
    "AioObservedChannel",
    "AioServerInterceptor",
    "Call",
    "CertificateError",
    "Certificates",
    "ClientInterceptor",
    "HideExceptions",
    "LifecycleObserver",
    "ListenError",
    "ObservedChannel",
    "Observer",
    "OnEnd",
    "Outcome",
    "ServerInterceptor",
    "SettingError",
    "Telemetry",
    "aio_client_interceptors",
    "current_call",
    "log_calls",
    "measure_calls",
    "serve",
    "serve_aio",
    "trace_calls",
}
CALLABLES = sorted(NAMES - {"Observer", "OnEnd"})


def test_names() -> None:
    """The package exports the contract's names and no others."""
    assert sorted(NAMES) == observability.__all__


@pytest.mark.parametrize("name", CALLABLES)
def test_docstrings(name: str) -> None:
    """Every public name has its own docstring."""
    thing = getattr(observability, name)

    assert inspect.getdoc(thing)
    assert thing.__doc__
    assert not re.match(rf"{name}\(", thing.__doc__)


@pytest.mark.parametrize("name", [name for name in CALLABLES if inspect.isclass(getattr(observability, name))])
def test_docstrings_of_methods(name: str) -> None:
    """Every public method of a public class has a docstring."""
    class_ = getattr(observability, name)
    functions = [function for key, function in vars(class_).items() if not key.startswith("_") and callable(function)]

    assert [] == [function.__qualname__ for function in functions if not function.__doc__]


@pytest.mark.parametrize("name", CALLABLES)
def test_annotations(name: str) -> None:
    """Every public function says what it takes and gives."""
    thing = getattr(observability, name)
    if inspect.isclass(thing):
        return
    signature = inspect.signature(thing)

    assert signature.return_annotation is not signature.empty
    assert [] == [parameter for parameter in signature.parameters.values() if parameter.annotation is parameter.empty]


def test_names_for_tests() -> None:
    """What is for tests stands apart: importing the package does not import it."""
    class_ = testing.RecordedTelemetry
    functions = [value for key, value in vars(class_).items() if not key.startswith("_") and callable(value)]

    assert ["RecordedTelemetry"] == testing.__all__
    assert all(inspect.getdoc(each) for each in (class_, *functions))


def test_names_of_the_instrumentor() -> None:
    """The instrumentor stands apart too, and is found under the distribution's name."""
    names = {
        group: [point.load() for point in entry_points(group=group, name="grpc_observability_kit")]
        for group in ("opentelemetry_instrumentor", "opentelemetry_post_instrument")
    }

    assert ["GrpcObservability", "take_over"] == instrumentor.__all__
    assert [[instrumentor.GrpcObservability], [instrumentor.take_over]] == [*names.values()]
    assert inspect.getdoc(instrumentor.GrpcObservability)


def test_version() -> None:
    """The version is the distribution's."""
    assert version("grpc-observability-kit") == observability.__version__


def test_typed() -> None:
    """The package says that it has types."""
    assert Path(observability.__file__).with_name("py.typed").exists()
