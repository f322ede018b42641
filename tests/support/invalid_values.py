"""An invalid value of each variable that can have one, and what the line that reports it says is allowed."""

A_NUMBER = "a whole number from 1 to 1000000000"
SECONDS = "a number from 0.001 to 1000000000"
A_FILE = "a file that can be read"
PAIRS = "a list of key=value"
BOOLEAN = "one of true, false"
COMPRESSION = "one of gzip, none"
AN_ENDPOINT = "a URL such as http://localhost:4317 or, for grpc, an address such as localhost:4317"

A_LIMIT = "a whole number from 0 to 1000000000"
A_CREDENTIAL_PROVIDER = "the name of an installed opentelemetry_otlp_credential_provider"
NEVER_SHOWN = "s3cr3t"
"""Part of every invalid value that may hold a secret, and of nothing that is printed."""

OURS = {
    "LOG_FORMAT": ("xml", "one of keyvalue, json"),
    "LOG_LEVEL": ("loud", "one of debug, info, warning, error, critical"),
    "OBSERVABILITY_TRACES": ("none", "one of native, contrib"),
    "OBSERVABILITY_LOG_CALLS": ("some", "all, failed or a number of milliseconds"),
    "OBSERVABILITY_METRICS_TLS_CERT": ("/no/such/file.pem", A_FILE),
    "OBSERVABILITY_METRICS_TLS_KEY": ("/no/such/key.pem", A_FILE),
    "OBSERVABILITY_METRICS_TLS_CLIENT_CA": ("/no/such/ca.pem", A_FILE),
}
"""Our own, but for OBSERVABILITY_LOG_BAGGAGE, of which every value is valid."""

STANDARD = {
    "OTEL_SDK_DISABLED": ("perhaps", BOOLEAN),
    "OTEL_RESOURCE_ATTRIBUTES": ("no pairs", PAIRS),
    "OTEL_EXPERIMENTAL_RESOURCE_DETECTORS": ("crystal ball", "a comma-separated list of *, host, "),
    "OTEL_PROPAGATORS": ("pigeon,tracecontext", "a comma-separated list of "),
    "OTEL_TRACES_EXPORTER": ("otlp,zipper", "a comma-separated list of otlp, console, none"),
    "OTEL_TRACES_SAMPLER": ("always", "one of always_on, always_off, traceidratio, parentbased_always_on, "),
    "OTEL_TRACES_SAMPLER_ARG": ("1.5", "a number from 0 to 1"),
    "OTEL_BSP_SCHEDULE_DELAY": ("soon", A_NUMBER),
    "OTEL_BSP_EXPORT_TIMEOUT": ("-1", A_NUMBER),
    "OTEL_BSP_MAX_QUEUE_SIZE": ("100000000000000000000", A_NUMBER),
    "OTEL_BSP_MAX_EXPORT_BATCH_SIZE": ("1e3", A_NUMBER),
    "OTEL_ATTRIBUTE_COUNT_LIMIT": ("many", A_LIMIT),
    "OTEL_ATTRIBUTE_VALUE_LENGTH_LIMIT": ("-1", A_LIMIT),
    "OTEL_SPAN_ATTRIBUTE_COUNT_LIMIT": ("many", A_LIMIT),
    "OTEL_SPAN_ATTRIBUTE_VALUE_LENGTH_LIMIT": ("1k", A_LIMIT),
    "OTEL_SPAN_EVENT_COUNT_LIMIT": ("1.5", A_LIMIT),
    "OTEL_SPAN_LINK_COUNT_LIMIT": ("100000000000000000000", A_LIMIT),
    "OTEL_EVENT_ATTRIBUTE_COUNT_LIMIT": ("none", A_LIMIT),
    "OTEL_LINK_ATTRIBUTE_COUNT_LIMIT": ("0x10", A_LIMIT),
    "OTEL_PYTHON_CONTEXT": ("nope", "one of contextvars_context"),
    "OTEL_PYTHON_TRACER_PROVIDER": ("nope", "one of default_tracer_provider, sdk_tracer_provider"),
    "OTEL_PYTHON_METER_PROVIDER": ("nope", "one of default_meter_provider, sdk_meter_provider"),
    "OTEL_PYTHON_SDK_INTERNAL_METRICS_ENABLED": ("on", BOOLEAN),
    "OTEL_METRICS_EXEMPLAR_FILTER": ("some", "one of trace_based, always_on, always_off"),
    "OTEL_PYTHON_EXPORTER_OTLP_GRPC_CREDENTIAL_PROVIDER": ("nope", A_CREDENTIAL_PROVIDER),
    "OTEL_PYTHON_EXPORTER_OTLP_GRPC_TRACES_CREDENTIAL_PROVIDER": ("nope", A_CREDENTIAL_PROVIDER),
    "OTEL_PYTHON_EXPORTER_OTLP_HTTP_CREDENTIAL_PROVIDER": ("nope", A_CREDENTIAL_PROVIDER),
    "OTEL_PYTHON_EXPORTER_OTLP_HTTP_TRACES_CREDENTIAL_PROVIDER": ("nope", A_CREDENTIAL_PROVIDER),
    "OTEL_PYTHON_EXPORTER_OTLP_GRPC_RETRYABLE_ERROR_CODES": ("UNAVAILABLE,502", "a comma-separated list of gRPC's"),
    "OTEL_EXPORTER_OTLP_ENDPOINT": ("http://localhost:port", AN_ENDPOINT),
    "OTEL_EXPORTER_OTLP_PROTOCOL": ("http/json", "one of grpc, http/protobuf"),
    "OTEL_EXPORTER_OTLP_TIMEOUT": ("10s", SECONDS),
    "OTEL_EXPORTER_OTLP_COMPRESSION": ("zip", COMPRESSION),
    "OTEL_EXPORTER_OTLP_INSECURE": ("yes", BOOLEAN),
    "OTEL_EXPORTER_OTLP_CERTIFICATE": ("/no/such/file.pem", A_FILE),
    "OTEL_EXPORTER_OTLP_CLIENT_KEY": ("/no/such/key.pem", A_FILE),
    "OTEL_EXPORTER_OTLP_CLIENT_CERTIFICATE": ("/no/such/certificate.pem", A_FILE),
    "OTEL_EXPORTER_OTLP_HEADERS": (f"Authorization: Bearer {NEVER_SHOWN}", PAIRS),
    "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": (f"ftp://user:{NEVER_SHOWN}@localhost:4317", AN_ENDPOINT),
    "OTEL_EXPORTER_OTLP_TRACES_PROTOCOL": ("carrier pigeon", "one of grpc, http/protobuf"),
    "OTEL_EXPORTER_OTLP_TRACES_TIMEOUT": ("0", SECONDS),
    "OTEL_EXPORTER_OTLP_TRACES_COMPRESSION": ("brotli", COMPRESSION),
    "OTEL_EXPORTER_OTLP_TRACES_INSECURE": ("1", BOOLEAN),
    "OTEL_EXPORTER_OTLP_TRACES_CERTIFICATE": ("/no/such/file.pem", A_FILE),
    "OTEL_EXPORTER_OTLP_TRACES_CLIENT_KEY": (f"-----BEGIN PRIVATE KEY-----\n{NEVER_SHOWN}", A_FILE),
    "OTEL_EXPORTER_OTLP_TRACES_CLIENT_CERTIFICATE": ("/no/such/certificate.pem", A_FILE),
    "OTEL_EXPORTER_OTLP_TRACES_HEADERS": (f"api-key={NEVER_SHOWN},broken", PAIRS),
    "OTEL_EXPORTER_PROMETHEUS_HOST": ("nowhere.invalid", "an address of this machine, such as 127.0.0.1 or 0.0.0.0"),
    "OTEL_EXPORTER_PROMETHEUS_PORT": ("70000", "a whole number from 0 to 65535"),
}
"""OpenTelemetry's."""


def complaint(name: str) -> str:
    """Return the start of the warning of a standard variable's invalid value: without it where it holds a secret."""
    value, allowed = STANDARD[name]
    return f"{name}={'***' if NEVER_SHOWN in value else repr(value)} is not {allowed}"
