"""Command lines: options are variables too, and an invalid value is reported in one line that says what is allowed."""

import contextlib
import ipaddress
import os
import re
import socket
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

import click

from observability import ListenError, SettingError
from observability.address import bare_host
from programs import streams

INTERRUPTED = 130  # as shells report a program that Ctrl-C ended


class Number(click.ParamType[float]):
    """A number from `minimum` to `maximum`: whole where `minimum` is an `int`."""

    def __init__(self, name: str, minimum: float, maximum: float) -> None:
        self.name = name
        self.minimum = minimum
        self.maximum = maximum

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """Return the number; fail with what is allowed."""
        kind = type(self.minimum)
        with contextlib.suppress(ValueError):
            if self.minimum <= (number := kind(value)) <= self.maximum:
                return number
        whole = "whole " if kind is int else ""
        return self.fail(f"{value!r} is not a {whole}number from {self.minimum:g} to {self.maximum:,}", param, ctx)


class ListenHost(click.ParamType[str]):
    """An address, or a name of one, that this machine can listen on."""

    name = "host"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """Return the host, with an IPv6 address in brackets, as `HOST:PORT` needs it."""
        host = value.removeprefix("[").removesuffix("]")
        found: list[Any] = []
        with contextlib.suppress(OSError, UnicodeError):
            found = socket.getaddrinfo(host, 0, type=socket.SOCK_STREAM)
        for family, kind, *_, address in found:
            with contextlib.suppress(OSError), socket.socket(family, kind) as probe:
                probe.bind(address)
                return f"[{host}]" if ":" in host else host
        return self.fail(f"{value!r} is not an address of this machine, such as 127.0.0.1, 0.0.0.0 or [::]", param, ctx)


class Text(click.ParamType[str]):
    """Text that can be sent: bytes that are no UTF-8 cannot."""

    name = "text"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """Return the text, which Python may have read in another encoding than that of the terminal."""
        with contextlib.suppress(UnicodeEncodeError):
            value.encode()
            return str(value)
        try:
            return os.fsencode(value).decode()
        except UnicodeError:
            self.fail(f"{value!r:.80} is not UTF-8 text", param, ctx)


class PeerAddress(click.ParamType[str]):
    """Where another program listens: `HOST:PORT`, an IPv6 address in brackets."""

    name = "host:port"
    pattern = re.compile(r"(?:[\w.-]+|\[[0-9A-Fa-f:.%\w]+\]):(\d{1,5})", re.ASCII)

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """Return the address as it was given."""
        if not self.is_host_port(value):
            self.fail(f"{value!r} is not HOST:PORT, such as 127.0.0.1:8080 or [::1]:8080", param, ctx)
        return str(value)

    def is_host_port(self, value: str) -> bool:
        """Return whether this is a host and a port of 1 to 65,535."""
        match = self.pattern.fullmatch(value)
        return match is not None and 1 <= int(match[1]) <= PORT.maximum


class GrpcTarget(PeerAddress):
    """Where the copies of another program listen: a gRPC target, of a name or of one or more addresses."""

    name = "target"
    named = re.compile(r"dns:(?://[\w.:\[\]-]*/)?(.+)", re.ASCII)
    listed = re.compile(r"ipv([46]):(.+)", re.ASCII)

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """Return the target as it was given."""
        if match := self.named.fullmatch(value):
            addresses = [match[1]]
        elif match := self.listed.fullmatch(value):
            addresses = match[2].split(",")
            if any(not is_address(address, int(match[1])) for address in addresses):
                addresses = [""]
        else:
            addresses = [value]
        if any(not self.is_host_port(address) for address in addresses):
            allowed = "HOST:PORT, dns:///HOST:PORT, or several addresses, such as ipv4:127.0.0.1:8080,127.0.0.1:8082"
            self.fail(f"{value!r} is not {allowed}", param, ctx)
        return str(value)


def is_address(host_port: str, version: int) -> bool:
    """Return whether this is the address of a host, of this version of IP, with a port, and no name."""
    host, _, _ = host_port.rpartition(":")
    with contextlib.suppress(ValueError):
        return ipaddress.ip_address(bare_host(host)).version == version
    return False


class Url(click.ParamType[str]):
    """Where pages are: http or https."""

    name = "url"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """Return the URL without a slash at its end."""
        # What is fetched there takes no user and password; nor are they shown.
        if not re.fullmatch(r"https?://[^\s/?#@]+(/[^\s?#]*)?", value):
            shown = "***" if "@" in value else repr(value)
            self.fail(f"{shown} is not a URL such as http://localhost:16686", param, ctx)
        return str(value).rstrip("/")


class ReadableFile(click.ParamType[str]):
    """A file that can be read."""

    name = "file"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """Return its name as it was given."""
        with contextlib.suppress(OSError):
            if Path(value).is_file() and os.access(value, os.R_OK):
                return str(value)
        return self.fail(f"{value!r} is not a file that can be read", param, ctx)


class NewFile(click.ParamType[Path]):
    """A file that can be written, or written over."""

    name = "file"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Path:
        """Return the path."""
        path = Path(value)
        if path.is_dir() or not (path.parent.is_dir() and os.access(path if path.exists() else path.parent, os.W_OK)):
            self.fail(f"{value!r} is not a file that can be written, in a folder that is there", param, ctx)
        return path


PORT = Number("port", 0, 65_535)
SECONDS = Number("seconds", 0.0, 86_400)
TIMEOUT = Number("seconds", 0.001, 86_400)
AGE = Number("seconds", 0.001, 2_000_000)  # grpc counts it in milliseconds of 31 bits
COUNT = Number("count", 1, 2**31 - 1)
BYTES = Number("bytes", 1, 2**31 - 1)


def option(
    flag: str, variable: str, type_: click.ParamType[Any], default: Any, help_: str
) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Give a command an option that is a variable too."""
    return click.option(
        flag,
        type=type_,
        default=default,
        envvar=variable,
        help=help_,
        show_default=True,
        show_envvar=True,
    )


def flag(name: str, variable: str, help_: str) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Give a command a flag that is off, and is a variable too."""
    return click.option(name, is_flag=True, envvar=variable, show_envvar=True, show_default="off", help=help_)


def run(command: click.Command, name: str | None = None) -> NoReturn:
    """
    Run a program, known to its help by `name`, and leave with what it returned: its exit status.

    A wrong option, variable or setting is one line on stderr and 2; an address in use, or a stdout that takes no more,
    is one line and 1. Where nobody reads stdout any more there is no line. A stdout that was closed is no fault.
    Leaving does not wait for threads: a handler may be busy, or a read of stdin may never return.
    """
    stdout = streams.prepare()
    try:
        status = status_of(command, name)
    except OSError:
        if stdout.error is None:
            raise
        status = 1
    with contextlib.suppress(OSError):
        sys.stdout.flush()
    if stdout.error is not None:
        status = status or 1
        if not isinstance(stdout.error, BrokenPipeError):
            click.echo(f"cannot write to stdout: {os.strerror(stdout.error.errno or 0).lower()}", err=True)
    os._exit(status)


def status_of(command: click.Command, name: str | None) -> int:
    """Run a program; return its exit status, after saying what was wrong if anything was."""
    try:
        return command.main(prog_name=name, standalone_mode=False) or 0
    except click.Abort:
        return INTERRUPTED
    except click.ClickException as error:
        click.echo(error.format_message(), err=True)
        return error.exit_code
    except (SettingError, ListenError) as error:
        click.echo(str(error), err=True)
        return 2 if isinstance(error, SettingError) else 1
    except SystemExit as error:  # click's end when nobody reads stdout any more
        return int(error.code or 0)
