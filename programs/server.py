"""What Service A and Service B have in common: a gRPC server within limits."""

# ruff: noqa: N802 - an RPC is a method under its own name

import contextlib
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import grpc
from google.protobuf import descriptor_pool, text_format
from google.protobuf.descriptor_pb2 import FileDescriptorProto
from grpc_health.v1 import health, health_pb2_grpc
from grpc_reflection.v1alpha import reflection, reflection_pb2

from observability import HideExceptions, Telemetry, serve
from observability.serving.health import MAX_WORKERS, Health, in_pool
from programs.options import AGE, BYTES, COUNT, PORT, SECONDS, ListenHost, flag, option
from programs.probes import answering_probes
from programs.tls import CERTIFICATE, CLIENT_CA, KEY, server_certificates, tls_files, tls_option
from protos import echo_pb2, echo_pb2_grpc


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerOptions:
    """Where a server listens, how it ends, and its limits; times are in seconds."""

    host: str
    port: int
    reuse_port: bool
    health_port: int | None
    reflection: bool
    grace: float
    drain_delay: float
    max_workers: int
    max_concurrent_rpcs: int
    max_concurrent_streams: int
    max_connections: int
    max_connection_age: float | None
    max_connection_age_grace: float
    max_request_bytes: int
    tls_cert: str | None
    tls_key: str | None
    tls_client_ca: str | None

    @property
    def address(self) -> str:
        """`HOST:PORT` to listen on."""
        return f"{self.host}:{self.port}"

    def ages(self) -> list[tuple[str, int]]:
        """Return grpc's options for the age of connections; none where they have no end."""
        if self.max_connection_age is None:
            return []
        return [
            ("grpc.max_connection_age_ms", round(self.max_connection_age * 1000)),
            ("grpc.max_connection_age_grace_ms", round(self.max_connection_age_grace * 1000)),
        ]

    def serve(self, server: grpc.Server, telemetry: Telemetry, credentials: grpc.ServerCredentials | None) -> int:
        """Serve where and as long as these options say; return the exit status."""
        servicer = Health.serving(telemetry.worker_pool(MAX_WORKERS, "health"), telemetry.services)
        health_pb2_grpc.add_HealthServicer_to_server(servicer, server)
        with contextlib.ExitStack() as probes:
            if self.health_port is not None:
                probes.enter_context(answering_probes(servicer, f"{self.host}:{self.health_port}"))
            return serve(
                server,
                self.address,
                telemetry,
                health=servicer,
                credentials=credentials,
                grace=self.grace,
                drain_delay=self.drain_delay,
                reuse_port=self.reuse_port,
            )

    def credentials(self) -> grpc.ServerCredentials | None:
        """Return the credentials by the files of certificates, None without; fail for files that do not do."""
        certificates = server_certificates(tls_files(self.tls_cert, self.tls_key, self.tls_client_ca))
        return certificates.server_credentials() if certificates else None


def server_options(prefix: str, *, port: int) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Give a command the options of `ServerOptions`; each is also a variable that begins with `prefix`."""
    options: list[Callable[[Callable[..., Any]], Callable[..., Any]]] = [
        option(
            "--host",
            f"{prefix}_HOST",
            ListenHost(),
            "127.0.0.1",
            "Address to listen on; 0.0.0.0 is every one.",
        ),
        option("--port", f"{prefix}_PORT", PORT, port, "Port to listen on; 0 takes a free one."),
        flag("--reuse-port", f"{prefix}_REUSE_PORT", "Share the port with other processes that do."),
        option(
            "--health-port",
            f"{prefix}_HEALTH_PORT",
            PORT,
            None,
            "Port for health checks alone, without TLS, as Kubernetes' probes need it; 0 takes a free one.",
        ),
        flag("--reflection", f"{prefix}_REFLECTION", "Serve gRPC server reflection."),
        option(
            "--grace",
            f"{prefix}_GRACE",
            SECONDS,
            5.0,
            "How long calls may still run after SIGTERM or SIGINT.",
        ),
        option(
            "--drain-delay",
            f"{prefix}_DRAIN_DELAY",
            SECONDS,
            0.0,
            "How long to be NOT_SERVING before refusing calls.",
        ),
        option("--max-workers", f"{prefix}_MAX_WORKERS", COUNT, 2_500, "Threads, so handlers that run at once."),
        option(
            "--max-concurrent-rpcs",
            f"{prefix}_MAX_CONCURRENT_RPCS",
            COUNT,
            2_500,
            "Calls at once, waiting ones included.",
        ),
        option(
            "--max-concurrent-streams",
            f"{prefix}_MAX_CONCURRENT_STREAMS",
            COUNT,
            100,
            "Calls at once on one connection.",
        ),
        option(
            "--max-connections",
            f"{prefix}_MAX_CONNECTIONS",
            COUNT,
            500,
            "Connections at once; one more is closed.",
        ),
        option(
            "--max-connection-age",
            f"{prefix}_MAX_CONNECTION_AGE",
            AGE,
            None,
            "How long a connection may take new calls; without end unless given.",
        ),
        option(
            "--max-connection-age-grace",
            f"{prefix}_MAX_CONNECTION_AGE_GRACE",
            AGE,
            60.0,
            "How long calls on a connection of that age may still run.",
        ),
        option(
            "--max-request-bytes",
            f"{prefix}_MAX_REQUEST_BYTES",
            BYTES,
            128 * 1024,
            "Largest gRPC message received.",
        ),
        tls_option(CERTIFICATE, f"{prefix}_TLS_CERT", "File of the server's certificate chain; it has TLS then."),
        tls_option(KEY, f"{prefix}_TLS_KEY", "File of its key."),
        tls_option(
            CLIENT_CA,
            f"{prefix}_TLS_CLIENT_CA",
            "File of the authority whose certificates callers then need: mutual TLS.",
        ),
    ]

    def decorate(command: Callable[..., Any]) -> Callable[..., Any]:
        for add in reversed(options):
            command = add(command)
        return command

    return decorate


def new_server(options: ServerOptions, telemetry: Telemetry, services: Sequence[str]) -> grpc.Server:
    """Return a server within its limits that reports every call, and answers `echo.v1.HealthService`."""
    server = grpc.server(
        telemetry.worker_pool(options.max_workers),
        interceptors=[HideExceptions(), *telemetry.server_interceptors()],
        maximum_concurrent_rpcs=options.max_concurrent_rpcs,
        options=[
            # Unless it is asked for: a second server on a used port takes half of the calls, silently.
            ("grpc.so_reuseport", int(options.reuse_port)),
            ("grpc.max_concurrent_streams", options.max_concurrent_streams),
            ("grpc.max_allowed_incoming_connections", options.max_connections),
            # One that is taken and says nothing would keep its place for two minutes.
            ("grpc.server_handshake_timeout_ms", 10_000),
            *options.ages(),
            ("grpc.max_receive_message_length", options.max_request_bytes),
            # B asks an idle connection twice a second whether somebody is there; gRPC minds that unless it is allowed.
            ("grpc.http2.min_recv_ping_interval_without_data_ms", 100),
        ],
    )
    health_workers = telemetry.worker_pool(options.max_concurrent_rpcs, "health")
    echo_pb2_grpc.add_HealthServiceServicer_to_server(HealthService(health_workers), server)
    if options.reflection:
        add_reflection([*services, health.SERVICE_NAME], server)
    return server


def add_reflection(services: Sequence[str], server: grpc.Server) -> None:
    """Serve reflection of these services, as v1alpha and as v1, which grpcio-reflection does not have."""
    names = (reflection.SERVICE_NAME, reflection.SERVICE_NAME.replace("v1alpha", "v1"))
    servicer = reflection.ReflectionServicer([*services, *names])
    # The two are the same on the wire.
    method = grpc.stream_stream_rpc_method_handler(
        servicer.ServerReflectionInfo,
        reflection_pb2.ServerReflectionRequest.FromString,
        reflection_pb2.ServerReflectionResponse.SerializeToString,
    )
    for name in names:
        server.add_generic_rpc_handlers([grpc.method_handlers_generic_handler(name, {"ServerReflectionInfo": method})])
    # Reflection describes itself, so v1 has to be known as well.
    file = FileDescriptorProto()
    reflection_pb2.DESCRIPTOR.CopyToProto(file)
    file.options.Clear()
    v1 = text_format.Parse(text_format.MessageToString(file).replace("v1alpha", "v1"), FileDescriptorProto())
    descriptor_pool.Default().AddSerializedFile(v1.SerializeToString())


class HealthService(echo_pb2_grpc.HealthServiceServicer):
    """Reports that the service answers, in threads of its own: it does so though calls hold all others."""

    def __init__(self, workers: ThreadPoolExecutor) -> None:
        self.Check = in_pool(workers, self.Check)  # type: ignore[method-assign]  # grpc asks the object

    def Check(
        self, _request: echo_pb2.HealthCheckRequest, _context: grpc.ServicerContext
    ) -> echo_pb2.HealthCheckResponse:
        """Answer `ok`."""
        return echo_pb2.HealthCheckResponse(status="ok")
