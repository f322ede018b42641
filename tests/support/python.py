"""
Starts Python programs as `subprocess` does, on Linux with a fraction of the CPU.

A start costs 0.4 s, nearly all of it for the import of libraries. So programs are forked from a process that has
imported these, and nothing of ours; gRPC is unused there, as it wants to be. All that is a program's own is as ever:
pid, parent, command line, environment, folder, session and descriptors, and every module of this project.

A variable that the libraries have read as they were imported, or that Python or gRPC's core read by themselves, must be
what it was there; where it is not, and on other systems, `subprocess` starts the program. Tests that measure a start,
or are about what Python does before a program begins and after its end, take that themselves.
"""

import ctypes
import inspect
import json
import os
import re
import socket
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from client.processes import ROOT, environment

READ_EARLY: Final = re.compile(r"PYTHON|GRPC_|LC_|LANG|TZ$|LD_|MALLOC_")
"""Variables that are read before a program begins, and by no module of Python."""
VERBOSITIES: Final = ("", "NONE")
"""The values of GRPC_VERBOSITY that tests use; gRPC reads it when it is imported."""
TAKE_ORPHANS: Final = 36
"""PR_SET_CHILD_SUBREAPER, of Linux: be the parent of descendants whose own parent has ended."""

NO_WARNINGS: Final = "import warnings; warnings.simplefilter('ignore')\n"
"""What a program begins with that forks beside threads, of which newer versions of Python warn."""


class ForkServer:
    """The program `fork_server` with these variables, until `end`."""

    def __init__(self, variables: Mapping[str, str]) -> None:
        self._lock = threading.Lock()
        self._prctl = ctypes.CDLL(None).prctl
        self._socket, its_socket = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with its_socket:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "tests.support.programs.fork_server"],
                cwd=ROOT,
                env=variables,
                stdin=its_socket.fileno(),
                stdout=its_socket.fileno(),
            )
        early = {name: value for name, value in variables.items() if READ_EARLY.match(name)}
        self._read = early | json.loads(self._socket.recv(2**16))

    def suits(self, variables: Mapping[str, str]) -> bool:
        """Return whether a program with these variables finds all that was done before it as it would be."""
        early = {name for name in variables if READ_EARLY.match(name)}
        return all(variables.get(name) == self._read.get(name) for name in early | self._read.keys())

    def fork(self, descriptors: Mapping[int, int], **request: Any) -> int:
        """Start a program as a child of this process, with these descriptors by their numbers there; return its pid."""
        request["descriptors"] = list(descriptors)
        with self._lock:
            self._prctl(TAKE_ORPHANS, 1, 0, 0, 0)
            try:
                socket.send_fds(self._socket, [json.dumps(request).encode()], list(descriptors.values()))
                return int(self._socket.recv(100))
            finally:
                self._prctl(TAKE_ORPHANS, 0, 0, 0, 0)

    def end(self) -> None:
        """End it; the programs go on."""
        self._socket.close()
        self._process.wait(10)


_servers: Final[dict[str, ForkServer]] = {}


def fork_server(variables: Mapping[str, str]) -> ForkServer | None:
    """Return what a program with these variables can be forked from, if it makes no difference."""
    verbosity = variables.get("GRPC_VERBOSITY", "")
    if sys.platform != "linux" or verbosity not in VERBOSITIES:
        return None
    if verbosity not in _servers:
        _servers[verbosity] = ForkServer(environment(**({"GRPC_VERBOSITY": verbosity} if verbosity else {})))
    server = _servers[verbosity]
    return server if server.suits(variables) else None


def end_fork_servers() -> None:
    """End what programs have been forked from."""
    while _servers:
        _servers.popitem()[1].end()


class Popen(subprocess.Popen[str]):
    """As `subprocess.Popen`, for text in UTF-8; forked where that makes no difference."""

    def __init__(self, command: Sequence[str | Path], **options: Any) -> None:
        super().__init__(command, **{"encoding": "utf-8", **options})

    def _execute_child(self, *arguments: Any) -> None:
        start: Any = super()._execute_child  # type: ignore[misc]  # not public; if it goes, nothing is forked
        given = inspect.signature(start).bind(*arguments).arguments
        python, *command = map(os.fspath, given["args"])
        variables = os.environ if given["env"] is None else given["env"]
        is_program = python == sys.executable and (command[0] in {"-c", "-m"} or not command[0].startswith("-"))
        if not is_program or not (server := fork_server(variables)):
            start(*arguments)
            return
        pipes = {name: given[name] for name in ("p2cread", "p2cwrite", "c2pread", "c2pwrite", "errread", "errwrite")}
        streams = enumerate((pipes["p2cread"], pipes["c2pwrite"], pipes["errwrite"]))
        self.pid = server.fork(
            {number: number if stream == -1 else stream for number, stream in streams}
            | {number: number for number in given["pass_fds"]},
            command=command,
            folder=os.fspath(given["cwd"] or Path.cwd()),
            environment=dict(variables),
            new_session=given["start_new_session"],
        )
        self._child_created = True
        self._close_pipe_fds(**pipes)  # type: ignore[attr-defined]  # as above


def run(
    *command: str | Path,
    variables: Mapping[str, str] = {},
    folder: Path = ROOT,
    stdin: str = "",
    timeout: float = 60,
) -> subprocess.CompletedProcess[str]:
    """
    Run `python COMMAND` to its end; return what came of it.

    Of the variables that steer our programs it has these alone. After `timeout` seconds it is killed, and
    subprocess.TimeoutExpired raised.
    """
    pipe = subprocess.PIPE
    started = [sys.executable, *command]
    with Popen(started, cwd=folder, env=environment(**variables), stdin=pipe, stdout=pipe, stderr=pipe) as process:
        try:
            stdout, stderr = process.communicate(stdin, timeout)
        finally:
            process.kill()
    return subprocess.CompletedProcess(started, process.returncode, stdout, stderr)
