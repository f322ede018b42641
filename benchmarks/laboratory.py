"""Where things are measured: the cores, the receivers, the load, and the processes that come and go."""

from __future__ import annotations

import tempfile
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Self

from .measured import Measured
from .process import Process
from .variants import Variant

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from types import TracebackType

    from .load import Loader


class Laboratory:
    """
    Starts what is measured on the first of `cores`, and all the rest on the other, where there are two.

    `advance` is called whenever something has been measured, for a progress bar.
    """

    def __init__(
        self,
        loader: Loader,
        cores: tuple[int | None, int | None] = (None, None),
        advance: Callable[[], object] = lambda: None,
    ) -> None:
        self.loader = loader
        self.advance = advance
        self._core, self._other = cores
        self.pinned = self._core is not None
        self._open = ExitStack()
        self._folder = Path(self._open.enter_context(tempfile.TemporaryDirectory(prefix="benchmark-")))
        self._files = 0
        self._receiver, self._endpoint = self._receive()
        self._hung_endpoint = self._receive("--hung")[1]

    @contextmanager
    def measure(self, variants: Sequence[Variant], *, hung: bool = False, methods: int = 0) -> Iterator[list[Measured]]:
        """
        Start variants, all at once; end them at the end.

        `hung` gives them a receiver that never answers, `methods` so many methods more. Clients get a bare
        server to call, beside the load.
        """
        with ExitStack() as started:
            target = ""
            if any(variant.side == "client" for variant in variants):
                process, _log = self._start(started, "subject", Variant("server", "sync", "bare").key, core=self._other)
                target = f"127.0.0.1:{process.ready()['port']}"
            options = (f"--target={target}", f"--methods={methods}")
            endpoint = self._hung_endpoint if hung else self._endpoint
            processes = [
                self._start(started, "subject", v.key, *options, core=self._core, endpoint=endpoint) for v in variants
            ]
            yield [
                started.enter_context(Measured(variant, process, log, self._spans))
                for variant, (process, log) in zip(variants, processes, strict=True)
            ]

    def _spans(self) -> int:
        return int(self._receiver.ask("spans"))

    def _receive(self, *options: str) -> tuple[Process, str]:
        process, _log = self._start(self._open, "receiver", *options, core=self._other)
        return process, f"http://127.0.0.1:{process.ready()['port']}"

    def _start(
        self, until: ExitStack, module: str, *arguments: str, core: int | None, endpoint: str = ""
    ) -> tuple[Process, Path]:
        self._files += 1
        log = self._folder / f"{self._files}.log"
        environment = {"OTEL_EXPORTER_OTLP_ENDPOINT": endpoint} if endpoint else {}
        process = Process(module, *arguments, core=core, stdout=log, environment=environment)
        return until.enter_context(process), log

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._open.close()
