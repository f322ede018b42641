"""
Forks Python programs that find their libraries imported; `tests.support.python` asks for them.

Its stdin is a socket. It writes there which variables the libraries have read as they were imported, and what they
were. Then it takes one request after the other, and answers each with the pid of a program: a process forked from
this one, and an orphan, whose parent is from then on the process that asks, if that takes in orphans.
"""

import contextlib
import fcntl
import gc
import importlib
import json
import os
import runpy
import socket
import sys
import types
import wsgiref.handlers  # noqa: F401 - it copies the whole environment, of which nothing is used here
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

# What the programs import, with what that imports. Nothing of this project; nor prometheus_client, which decides by a
# variable, when it is imported, where values are kept.
LIBRARIES: Final = (
    "click",
    "google.rpc.status_pb2",
    "grpc.aio",
    "grpc_health.v1.health",
    "grpc_reflection.v1alpha.reflection",
    "grpc_status.rpc_status",
    "http.server",
    "opentelemetry.exporter.otlp.proto.grpc.trace_exporter",
    "opentelemetry.exporter.otlp.proto.http.trace_exporter",
    "opentelemetry.instrumentation.grpc",
    "opentelemetry.propagators.composite",
    "opentelemetry.sdk.trace.export.in_memory_span_exporter",
    "rich.console",
    "structlog",
    "timeit",
    "urllib.request",
    "wsgiref.simple_server",
)
LARGEST_REQUEST: Final = 2**18
MOST_DESCRIPTORS: Final = 10

_names_read: set[str] = set()


class Recording(type(os.environ)):  # type: ignore[misc]  # its class has no public name
    """The environment, which keeps the names that are asked for."""

    def __getitem__(self, name: str) -> str:
        """Return a variable's value."""
        _names_read.add(name)
        return str(super().__getitem__(name))


def import_libraries() -> dict[str, str | None]:
    """Import what is installed of the libraries; return the variables that they have read."""
    plain = os.environ.__class__
    os.environ.__class__ = Recording
    for library in LIBRARIES:
        with contextlib.suppress(ModuleNotFoundError):
            importlib.import_module(library)
    os.environ.__class__ = plain
    return {name: os.environ.get(name) for name in _names_read}


def requests(client: socket.socket) -> Iterator[tuple[dict[str, Any], list[int]]]:
    """Yield each request, and the descriptors that came with it."""
    while True:
        text, descriptors, _, _ = socket.recv_fds(client, LARGEST_REQUEST, MOST_DESCRIPTORS)
        if not text:
            return
        yield json.loads(text), descriptors


def fork() -> int:
    """Fork a child of a child that has ended, and so an orphan; return its pid, and 0 in it."""
    reader, writer = os.pipe()
    if child := os.fork():
        os.close(writer)
        os.waitpid(child, 0)
        pid = int(os.read(reader, 100))
        os.close(reader)
        return pid
    parent = os.getpid()
    if orphan := os.fork():
        os.write(writer, str(orphan).encode())
        os._exit(0)
    while os.getppid() == parent:  # it sees none but its own
        os.sched_yield()
    return 0


def become(request: dict[str, Any], descriptors: list[int]) -> None:
    """Take over the descriptors, folder, environment and session of the program that is asked for; keep no others."""
    numbers = request["descriptors"]
    spare = 1 + max(*descriptors, *numbers)
    copies = [fcntl.fcntl(descriptor, fcntl.F_DUPFD, spare) for descriptor in descriptors]
    os.closerange(3, spare)
    for copy, number in zip(copies, numbers, strict=True):
        os.dup2(copy, number)
    os.closerange(spare, 1 + max(copies))
    if request["new_session"]:
        os.setsid()
    os.chdir(request["folder"])
    os.environ.clear()
    os.environ.update(request["environment"])


def run(program: str, *arguments: str) -> None:
    """Run a program as `python PROGRAM ARGUMENTS` does."""
    if program == "-m":
        module, *rest = arguments
        start_with(str(Path.cwd()), program, *rest)
        runpy.run_module(module, run_name="__main__", alter_sys=True)
        return
    sys.modules["__main__"] = main = types.ModuleType("__main__")
    if program == "-c":
        code, *rest = arguments
        file = "<string>"
        start_with("", program, *rest)
    else:
        path = Path(program).resolve()
        path = path / "__main__.py" if path.is_dir() else path
        code = path.read_text("utf-8")
        main.__file__ = file = str(path)
        start_with(str(path.parent), program, *arguments)
    exec(compile(code, file, "exec"), main.__dict__)  # noqa: S102 - that is what was asked for


def start_with(first: str, *command: str) -> None:
    """Look for modules here before all else, unless Python shall not; have this command line."""
    if not sys.flags.safe_path:
        sys.path[0] = first
    sys.argv = [*command]


def main() -> list[str]:
    """Fork programs until nobody can ask for one any more; return, in each of them, its command line."""
    with socket.socket(fileno=0) as client:
        client.send(json.dumps(import_libraries()).encode())
        gc.freeze()
        for request, descriptors in requests(client):
            if not (pid := fork()):
                client.detach()
                become(request, descriptors)
                return list(request["command"])
            for descriptor in descriptors:
                os.close(descriptor)
            client.send(str(pid).encode())
    return []


if __name__ == "__main__" and (command := main()):
    run(*command)
