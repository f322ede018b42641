"""TLS by options: a server's certificates, and where and how another program is called."""

import functools
from collections.abc import Callable, Sequence
from typing import Any, NoReturn, TypeAlias

import click
import grpc

from observability import CertificateError, Certificates
from observability.certificates import Role
from programs.addresses import Addresses
from programs.handshake import failure_of_handshake
from programs.options import PeerAddress, ReadableFile, Text, option
from programs.renewed_channel import RenewedChannel

Decorator: TypeAlias = Callable[[Callable[..., Any]], Callable[..., Any]]

CERTIFICATE, KEY, CA, CLIENT_CA, SERVER_NAME = (
    "--tls-cert",
    "--tls-key",
    "--tls-ca",
    "--tls-client-ca",
    "--tls-server-name",
)


def tls_files(certificate: str | None, key: str | None, authority: str | None) -> dict[Role, str]:
    """Return the files that there are, by what they hold."""
    files: dict[Role, str | None] = {
        "certificate_chain": certificate,
        "private_key": key,
        "root_certificates": authority,
    }
    return {role: path for role, path in files.items() if path is not None}


def server_certificates(files: dict[Role, str]) -> Certificates | None:
    """Return the certificates of a server with these files, None without; fail for files that do not do."""
    return _read(files, CLIENT_CA, needed=CERTIFICATE) if files else None


class Target:
    """
    Where another program listens, and with which files it is called; without any it is in plain text.

    `server_name` is the name in that program's certificate where it is not the address's. Fails for files that do
    not do.
    """

    def __init__(self, address: str, files: dict[Role, str], server_name: str | None) -> None:
        if server_name is not None and not files:
            _refuse(SERVER_NAME, missing=CA)
        self.address = address
        self._files = files
        self._server_name = server_name
        self._certificates = _read(files, CA, needed=CA) if files else None

    def channel(self, options: Sequence[tuple[str, Any]] = (), *, follow: bool = False) -> grpc.Channel:
        """
        Return a channel with these options; it goes on with new certificates once there are some.

        To `follow` a name is to find what is new behind it within two seconds.
        """
        certificates = self._certificates
        addresses = Addresses.behind(self.address) if follow else None
        if self._server_name is not None:
            options = [*options, ("grpc.ssl_target_name_override", self._server_name)]

        def make() -> grpc.Channel:
            if certificates is None:
                return grpc.insecure_channel(self.address, options)
            return grpc.secure_channel(self.address, certificates.channel_credentials(), options)

        if certificates is None and addresses is None:
            return make()
        return RenewedChannel(make, certificates=certificates, addresses=addresses)

    def failure_of_handshake(self) -> str | None:
        """Try, and return why the two do not agree on TLS, or None where they do or nobody is there."""
        return failure_of_handshake(self.address, self._files, self._server_name)


def _read(files: dict[Role, str], authority: str, *, needed: str) -> Certificates:
    """Read the files of these options, of which `authority` is the last, and one is `needed` for the others."""
    flags: dict[Role, str] = {"certificate_chain": CERTIFICATE, "private_key": KEY, "root_certificates": authority}
    given = {flags[role] for role in files}
    for flag, others in ((needed, given), (KEY, given & {CERTIFICATE}), (CERTIFICATE, given & {KEY})):
        if others and flag not in given:
            _refuse(min(others), missing=flag)
    try:
        return Certificates(**files)
    except CertificateError as error:
        raise click.BadParameter(str(error), param=_param(flags[error.role])) from error


def _refuse(flag: str, *, missing: str) -> NoReturn:
    """Fail for an option that was given without another one."""
    param = _param(flag)
    value = click.get_current_context().params.get(param.name or "")
    raise click.BadParameter(f"{value!r} is not used without {missing}", param=param)


def _param(flag: str) -> click.Parameter:
    return next(param for param in click.get_current_context().command.params if flag in param.opts)


def tls_option(flag: str, variable: str, help_: str) -> Decorator:
    """Give a command an option that names a file, and is a variable too."""
    return option(flag, variable, ReadableFile(), None, help_)


def server_name_option(prefix: str) -> Decorator:
    """Give a command the option for the name in a server's certificate."""
    help_ = "Name in the server's certificate, where it is not the address's."
    return option(SERVER_NAME, f"{prefix}_TLS_SERVER_NAME", Text(), None, help_)


def target_options(flag: str, variable: str, default: str) -> Decorator:
    """Give a command of the client's the options for the service that it calls: its function gets a `target`."""
    name = flag.removeprefix("--")
    options = [
        option(flag, variable, PeerAddress(), default, f"Where {name.replace('-', ' ').title()} listens."),
        tls_option(CA, "CLIENT_TLS_CA", "File of the authority whose certificate it has; calls have TLS then."),
        tls_option(CERTIFICATE, "CLIENT_TLS_CERT", "File of our certificate, for mutual TLS."),
        tls_option(KEY, "CLIENT_TLS_KEY", "File of its key."),
        server_name_option("CLIENT"),
    ]

    def decorate(command: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(command)
        def run(*args: Any, **settings: Any) -> Any:
            address = settings.pop(name.replace("-", "_"))
            files = tls_files(settings.pop("tls_cert"), settings.pop("tls_key"), settings.pop("tls_ca"))
            target = Target(address, files, settings.pop("tls_server_name"))
            return command(*args, target=target, **settings)

        decorated: Callable[..., Any] = run
        for add in reversed(options):
            decorated = add(decorated)
        return decorated

    return decorate
