"""
Writes certificates for this machine: of an authority, and of both services and the client by it.

They are for trying TLS out, by `make demo TLS=1` and the compose file's profile `tls`. The authority's key is not
written: nobody can issue another certificate, and the next run begins with another authority. Each file is replaced
as a whole, so that programs that run take the new ones.
"""

# ruff: noqa: INP001, T201 - a program run by path, which prints

import sys
from pathlib import Path

import trustme

FOLDER = Path(__file__).resolve().parent.parent / "certs"
LOCAL = ("localhost", "127.0.0.1", "::1")
NAMES = {"service-a": ("service-a", *LOCAL), "service-b": ("service-b", *LOCAL), "client": ("client",)}
"""The names that each certificate is for; the first is what others know its owner by."""


def write(folder: Path) -> None:
    """Write the authority's certificate to `ca.pem`, and each owner's, with its key, to OWNER.pem and OWNER.key."""
    folder.mkdir(exist_ok=True)
    authority = trustme.CA()
    put(folder / "ca.pem", authority.cert_pem.bytes())
    for owner, names in NAMES.items():
        issued = authority.issue_cert(*names)
        # A service in a container reads its key as a user of its own.
        put(folder / f"{owner}.key", issued.private_key_pem.bytes())
        put(folder / f"{owner}.pem", b"".join(pem.bytes() for pem in issued.cert_chain_pems))


def put(path: Path, pem: bytes) -> None:
    """Put a file in place of the one that may be there, at one stroke."""
    new = path.with_name(f".{path.name}")
    new.write_bytes(pem)
    new.replace(path)


if __name__ == "__main__":
    folder = Path(sys.argv[1]) if sys.argv[1:] else FOLDER
    write(folder)
    print(f"certificates of localhost, service-a, service-b and client are in {folder}")
