"""How the benchmark talks with the processes that it starts: one JSON object a line, over a socket pair."""

from __future__ import annotations

import json
import socket
from typing import TYPE_CHECKING, Any, Self

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping


class Wire:
    """One end of the conversation."""

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection
        self._file = connection.makefile("rw", encoding="utf-8")

    @classmethod
    def inherited(cls, descriptor: int) -> Self:
        """Take the end that a process was started with."""
        return cls(socket.socket(fileno=descriptor))

    def send(self, message: object) -> None:
        """Send one message."""
        self._file.write(json.dumps(message) + "\n")
        self._file.flush()

    def receive(self) -> Any:
        """
        Wait for one message.

        Raises EOFError when the other end has gone.
        """
        line = self._file.readline()
        if not line:
            raise EOFError("the other process has gone")
        return json.loads(line)

    def answer(self, answers: Mapping[str, Callable[..., object]]) -> None:
        """Answer questions, by name and arguments, until nobody is there to ask."""
        while True:
            try:
                question, arguments = self.receive()
            except EOFError:
                return
            self.send(answers[question](**arguments))

    def close(self) -> None:
        """End the conversation."""
        self._file.close()
        self._connection.close()
