"""
The documentation site, which `make docs` builds: the project's own pages, and a reference that the docstrings make.

Its source is the whole project, and not this folder alone: a link from any page to another, or to a program, is the
same on the site and where the repository is shown. What leads nowhere is a warning, and a warning fails the build.
"""

# ruff: noqa: INP001 - a program's settings, not a package

from __future__ import annotations

import inspect
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import grpc.aio
from docutils import nodes  # type: ignore[import-untyped]  # no types
from pygments.lexers.special import TextLexer  # type: ignore[import-untyped]  # as above
from sphinx.parsers import Parser
from sphinx.util import logging

import observability
from observability import instrumentor, testing

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import ModuleType

    from sphinx.application import Sphinx
    from sphinx.environment import BuildEnvironment

PUBLIC: list[ModuleType] = [observability, testing, instrumentor]
"""The modules whose `__all__` others may use."""
CONTENTS = {
    "README": {
        "Start": [
            "docs/tutorial",
            "docs/concepts",
            "docs/stack",
            "docs/observability",
            "docs/collector",
            "docs/balancing",
            "docs/kubernetes",
        ],
        "In your own service": [
            "docs/sync-server",
            "docs/asyncio-server",
            "docs/client",
            "docs/zero-code",
            "docs/observers",
            "docs/beside",
            "docs/tls",
            "docs/testing",
            "docs/processes",
            "docs/migrating",
            "examples/README",
        ],
        "Reference": [
            "docs/settings",
            "docs/signals",
            "docs/reference/telemetry",
            "docs/reference/observers",
            "docs/reference/interceptors",
            "docs/reference/certificates",
            "docs/reference/errors",
            "docs/reference/testing",
            "docs/reference/instrumentor",
            "docs/glossary",
        ],
        "What it does, and what not": [
            "docs/stability",
            "docs/limitations",
            "docs/faults",
            "docs/performance",
            "docs/scale",
            "docs/conformance",
        ],
        "The project": [
            "ARCHITECTURE",
            "docs/decisions",
            "docs/adding",
            "CONTRIBUTING",
            "RELEASE",
            "SECURITY",
            "CHANGELOG",
        ],
    },
    "examples/README": {"The programs": ["*"]},
}
"""What stands below a page, by captions. Where the repository is shown the pages' own links lead there."""

project = "grpc-observability-kit"
version = observability.__version__
html_title = f"{project} {version}"
root_doc = "README"
include_patterns = ["*.md", "docs/**.md", "examples/*.md", "examples/*.py"]
exclude_patterns = [".*", "build", "examples/__init__.py"]
source_suffix = {".md": "markdown", ".py": "program"}
extensions = ["myst_parser", "sphinx.ext.autodoc"]
myst_heading_anchors = 3
default_role = "code"
highlight_language = "none"
autodoc_member_order = "bysource"
autodoc_preserve_defaults = True
autodoc_typehints_format = "fully-qualified"
python_maximum_signature_line_length = 80
smartquotes = False
# The fonts of the reader's system, and nothing from elsewhere.
html_theme = "furo"
html_static_path = ["site.css"]
html_css_files = ["site.css"]
html_copy_source = False
html_show_sourcelink = False
html_show_copyright = False


# Types are shown by the module that they are defined in, which here is not the one that others import.
for each in vars(grpc.aio).values():
    if inspect.isclass(each) and each.__module__.startswith("grpc.aio._"):
        each.__module__ = "grpc.aio"


class ProgramParser(Parser):
    """Makes a page of a program: its name, and its text."""

    supported: ClassVar = ("program",)

    def parse(self, inputstring: str, document: nodes.document) -> None:
        """Fill the document."""
        self.setup_parse(inputstring, document)
        name = Path(document["source"]).name
        program = nodes.literal_block(inputstring, inputstring, language="python")
        document += nodes.section("", nodes.title("", name), program, ids=[nodes.make_id(name)])
        self.finish_parse()


def add_contents(_app: Sphinx, docname: str, source: list[str]) -> None:
    """Give a page what stands below it."""
    for caption, pages in CONTENTS.get(docname, {}).items():
        source[0] += "\n".join(
            ["", "```{toctree}", ":hidden:", ":glob:", f":caption: {caption}", "", *pages, "```", ""]
        )


def undocumented(objects: Any) -> Iterator[str]:
    """Yield the public names that the reference has not, and those without a docstring of their own."""
    for module in PUBLIC:
        for name in module.__all__:
            full_name, thing = f"{module.__name__}.{name}", getattr(module, name)
            if full_name not in objects:
                yield full_name
            if inspect.isclass(thing) or inspect.isroutine(thing):
                members = vars(thing).items() if inspect.isclass(thing) else ()
                own = {f".{key}": member for key, member in members if is_public(key, member)}
                yield from (f"{full_name}{key}" for key, each in {"": thing, **own}.items() if not each.__doc__)


def is_public(name: str, member: object) -> bool:
    """Return whether a class's member is a method or a property for others."""
    kinds = (classmethod, staticmethod, property)
    return not name.startswith("_") and (inspect.isfunction(member) or isinstance(member, kinds))


def check_public_names(_app: Sphinx, env: BuildEnvironment) -> list[str]:
    """Warn of public names that are not documented."""
    for name in sorted(set(undocumented(env.get_domain("py").data["objects"]))):
        logging.getLogger(__name__).warning("public, and not documented: %s", name)
    return []


def add_start_page(app: Sphinx, error: Exception | None) -> None:
    """Let the site begin where browsers look for its beginning, too."""
    if error is None and app.builder.name == "html":
        (app.outdir / "index.html").write_bytes((app.outdir / f"{root_doc}.html").read_bytes())


def setup(app: Sphinx) -> None:
    """Have all this done."""
    app.add_source_parser(ProgramParser)
    app.add_lexer("mermaid", TextLexer)  # shown as it is: what draws it would come from elsewhere
    app.connect("source-read", add_contents)
    app.connect("env-updated", check_public_names)
    app.connect("build-finished", add_start_page)
