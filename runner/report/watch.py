"""`dcreport --watch`: a small server at this machine's loopback that shows runs while they go on.

`/` is a page of all jobs that refreshes itself, `/report.html` the report as it would be written now, and `/jobs.json`
what the first page asks for.
"""

import json
import threading
from collections.abc import Callable
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import urlsplit

from jinja2 import Environment, PackageLoader
from markupsafe import Markup
from plotly.offline import get_plotlyjs

from runner.config.errors import InputError
from runner.report.live_jobs import LiveJobs
from runner.report.page import LIBRARY

HOST = "127.0.0.1"


class ReportServer(ThreadingHTTPServer):
    """The server; `serve_forever` and `shutdown` are those of the standard library.

    Args:
        jobs: what is watched.
        render: makes the report, with the plot library beside it.
        port: where to listen; 0 takes a free one.
        title: of the page of jobs.

    Raises:
        InputError: the port cannot be had.
    """

    daemon_threads = True

    def __init__(self, jobs: LiveJobs, render: Callable[[], str], port: int, title: str) -> None:
        try:
            super().__init__((HOST, port), _Handler)
        except (OSError, OverflowError) as error:
            raise InputError(
                f"--port={port}: cannot be listened at ({error}); allowed: a free port, 0 for any"
            ) from error
        templates = Environment(loader=PackageLoader("runner.report"), autoescape=True, trim_blocks=True)
        css = Markup(templates.get_template("report.css").render())
        self._page = templates.get_template("watch.html.j2").render(title=title, css=css)
        self._jobs, self._render = jobs, render
        # Two browsers may ask at once; the state of what was read is one.
        self._lock = threading.Lock()
        self._report: tuple[str, str] = ("", "")

    @property
    def address(self) -> str:
        """Where a browser finds it."""
        return f"http://{HOST}:{self.server_port}/"

    def answer(self, path: str) -> tuple[str, str] | None:
        """Return the type and the content of a path; None if there is no such path."""
        if path == "/":
            return "text/html", self._page
        if path == f"/{LIBRARY}":
            return "text/javascript", get_plotlyjs()
        if path not in ("/jobs.json", "/report.html"):
            return None
        with self._lock:
            version, jobs = self._jobs.look()
            if path == "/jobs.json":
                return "application/json", json.dumps({"version": version, "jobs": jobs})
            # Built when somebody asks and something has changed: with many runs it takes seconds.
            if self._report[0] != version:
                self._report = version, self._render()
            return "text/html", self._report[1]


class _Handler(BaseHTTPRequestHandler):
    server: ReportServer

    def do_GET(self) -> None:
        """Answer a browser."""
        # A page elsewhere can give its own name this machine's address, and would read along in the browser.
        if (self.headers.get("Host") or "").rpartition(":")[0] not in (HOST, "localhost"):
            self.send_error(HTTPStatus.FORBIDDEN)
            return
        found = self.server.answer(urlsplit(self.path).path)
        if found is None:
            self.send_error(HTTPStatus.NOT_FOUND)
            return
        kind, text = found
        content = text.encode()
        self.send_response(HTTPStatus.OK)
        self.send_header("Content-Type", f"{kind}; charset=utf-8")
        self.send_header("Content-Length", str(len(content)))
        self.send_header("Cache-Control", "no-store")
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 (the standard library's name)
        """Say nothing: a page that refreshes itself would fill the terminal."""
