"""The private names of other packages that the package uses: a test names each that an installed version lacks."""

import ast
import asyncio
import importlib
import inspect
import multiprocessing.process
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import billiard.process  # type: ignore[import-untyped]  # it has no stubs
import grpc
import pytest
from grpc.aio import _call, _channel
from opentelemetry.exporter.otlp.proto.grpc import exporter
from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.trace import SpanContext, TraceFlags
from prometheus_client import values

import observability
from observability.traces.start import _OF_END, _OF_START, SpanStarter
from tests.support.rpc import OLD_AIO, aio_connected, connected, method

PAGE = Path(__file__).parents[2] / "docs" / "decisions.md"
PACKAGE = Path(observability.__file__).parent
PRIVATE = re.compile(r"_[A-Za-z]\w*")


async def name_of_task() -> str:
    """Return the name of the task in which grpc.aio.server runs an async handler."""

    async def behavior(_request: bytes, _context: Any) -> bytes:
        task = asyncio.current_task()
        return task.get_name().encode() if task else b""

    async with aio_connected(unary=behavior) as channel:
        name: bytes = await method(channel, "unary")(b"", timeout=10)
    return name.decode()


def module_of_requests() -> str:
    """Return the module of what grpc.server gives a handler as its stream of requests."""

    def behavior(requests: Any, _context: Any) -> bytes:
        return type(requests).__module__.encode()

    with connected(client_stream=behavior) as channel:
        name: bytes = method(channel, "client_stream")(iter([b""]), timeout=10)
    return name.decode()


NAMES: dict[str, Callable[[], Any]] = {
    "OTLPSpanExporter._translate_data": lambda: OTLPSpanExporter._translate_data,
    "OTLPSpanExporter._initialize_channel_and_stub": lambda: OTLPSpanExporter._initialize_channel_and_stub,
    "OTLPSpanExporter._client": lambda: re.search(r"self\._client\b", inspect.getsource(exporter))[0],  # type: ignore[index]
    "_Span": lambda: SpanStarter(TracerProvider(shutdown_on_exit=False).get_tracer("a")).is_lazy,
    "ParentBased._remote_parent_sampled": lambda: SpanStarter(
        TracerProvider(shutdown_on_exit=False).get_tracer("a")
    ).decides_by_flags(SpanContext(1, 1, is_remote=True, trace_flags=TraceFlags(TraceFlags.SAMPLED))),
    "prometheus_client.values.ValueClass._multiprocess": lambda: hasattr(values.ValueClass, "_multiprocess"),
    "UnaryUnaryCall._loop": lambda: re.search(r"self\._loop\b", inspect.getsource(_call))[0],  # type: ignore[index]
    "WeakSet": lambda: re.search(r"self\._calls\b|WeakSet", inspect.getsource(_channel))[0],  # type: ignore[index]
    "HandleExceptions[": lambda: asyncio.run(name_of_task()).startswith("HandleExceptions["),
    "grpc._server": lambda: module_of_requests() == "grpc._server",
    "multiprocessing.process._MainProcess": lambda: (
        type(multiprocessing.process.current_process()).__name__ == "_MainProcess"
        or multiprocessing.process.parent_process()
    ),
    "billiard.process.BaseProcess._target": lambda: (
        vars(billiard.process.BaseProcess(target=print))["_target"] is print
    ),
    "grpc.unary_unary_rpc_method_handler": lambda: type(grpc.unary_unary_rpc_method_handler(None))._fields,  # type: ignore[arg-type, attr-defined]
}
"""Each name of the page, and how it is found."""


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=pytest.mark.skipif(name == "WeakSet" and OLD_AIO, reason="there is none before 1.85"))
        for name in NAMES
    ],
)
def test_name_is_there(name: str) -> None:
    """
    The installed version has the name; without it the package goes another way, which docs/decisions.md names.
    """
    assert NAMES[name]()


def test_names_are_those_of_the_page() -> None:
    """
    The page has a row for each name, and no other.
    """
    rows = re.findall(
        r"^\| (.*?) \|.*\|$", PAGE.read_text("utf-8").partition("## Names that are not public")[2], re.MULTILINE
    )

    assert len(NAMES) == len(rows[1:])
    assert all(any(name in row for row in rows) for name in NAMES)


def names_of_others() -> set[str]:
    """Return the private names that the package's source asks others for, by attribute, by getattr or by comparison."""
    read: set[Any] = set()
    asked: set[str] = set()
    own: set[str] = {*_OF_START, *_OF_END, "_exit", "_OTHER"}  # os._exit is public, the other OpenTelemetry's word
    for path in PACKAGE.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            match node:
                case ast.Attribute(value=ast.Name(id="self" | "cls"), attr=name, ctx=ast.Store()):
                    own.add(name)
                case ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name) | ast.Name(id=name, ctx=ast.Store()):
                    own.add(name)
                case ast.Attribute(attr=name) | ast.alias(name=name):
                    read.add(name)
                case ast.Call(func=ast.Name(id="getattr" | "hasattr"), args=[_, ast.Constant(value=str(name)), *_]):
                    asked.add(name)
                case ast.Compare():
                    read |= {each.value for each in ast.walk(node) if isinstance(each, ast.Constant)}
    return {name for name in asked | (read - own) if isinstance(name, str) and PRIVATE.fullmatch(name)}


def overridden_names() -> set[str]:
    """Return the private names of others that the package's classes have in another way, unless they are asked to."""
    found = set()
    for path in PACKAGE.rglob("*.py"):
        name = ".".join(path.relative_to(PACKAGE.parent).with_suffix("").parts).removesuffix(".__init__")
        for class_ in vars(importlib.import_module(name)).values():
            if isinstance(class_, type) and class_.__module__ == name:
                others = [base for base in class_.__mro__ if not base.__module__.startswith("observability")]
                found |= {
                    name
                    for base in others
                    for name in vars(base).keys() & vars(class_).keys()
                    if PRIVATE.fullmatch(name) and not getattr(vars(base)[name], "__isabstractmethod__", False)
                }
    # Python's, what an instrumentor is to have, and what it keeps once there is one.
    return found - {"_abc_impl", "_instrument", "_instance"}


def test_page_has_every_name() -> None:
    """
    Whatever private name of others the package uses, or has in another way, stands on the page.
    """
    page = PAGE.read_text("utf-8").partition("## Names that are not public")[2]

    assert set() == {name for name in names_of_others() | overridden_names() if not re.search(rf"\b{name}\b", page)}
