"""HTML: one file that needs nothing else, for a browser, a phone, a printer, or an artifact of a CI job.

Every text is clean, as in all reports, and the template escapes it for HTML. There is no script, and the content
security policy forbids any: it allows nothing but the one style sheet in the page, by its checksum.
"""

from __future__ import annotations

from base64 import b64encode
from hashlib import sha256
from typing import TYPE_CHECKING

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from chrootsync.report.html.view import page

if TYPE_CHECKING:
    from chrootsync.model import Report
    from chrootsync.report import Options


def render(report: Report, options: Options) -> str:
    """The report as one HTML document."""
    templates = Environment(
        loader=PackageLoader(__name__, ""),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    style = templates.get_template("style.css").render()
    return templates.get_template("page.html").render(
        page=page(report, options),
        style=Markup(style),  # noqa: S704 -- our own file; no text of a report is in it
        policy=policy(style),
    )


def policy(style: str) -> str:
    """The content security policy of a page with one style sheet."""
    checksum = b64encode(sha256(style.encode()).digest()).decode("ascii")
    return f"default-src 'none'; style-src 'sha256-{checksum}'; base-uri 'none'; form-action 'none'"
