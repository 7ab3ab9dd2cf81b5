import errno
import hashlib
import http.server
import os
import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from data import download
from data.download import Published, check_url, fetch

CONTENT = b"published" * 1000
FILE = Published("set.bin", hashlib.md5(CONTENT).hexdigest())


class Mirror(http.server.BaseHTTPRequestHandler):
    """Serves the file under /good, and a fault under any other name."""

    def do_GET(self) -> None:
        kind = self.path.split("/")[1]
        if kind.isdigit():
            self.send_error(int(kind))
            return
        self.send_response(200)
        self.send_header("Content-Length", str(len(CONTENT)))
        self.end_headers()
        if kind == "silent":
            self.server.never.wait(20)  # type: ignore[attr-defined]
        content = {"good": CONTENT, "other": CONTENT[::-1], "cut": CONTENT[:4000]}.get(kind, b"")
        self.wfile.write(content)

    def log_message(self, *args: object) -> None:
        pass


@pytest.fixture
def mirror() -> Iterator[str]:
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Mirror)
    server.never = threading.Event()  # type: ignore[attr-defined]
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    yield f"http://127.0.0.1:{server.server_address[1]}"
    server.never.set()  # type: ignore[attr-defined]
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture(autouse=True)
def no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)


def fetched(folder: Path, url: str | None, publisher: str = "http://127.0.0.1:9") -> Path:
    return fetch(FILE, folder, url, publisher, "the set")


def left(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()} - {f".{FILE.name}.lock"}


def test_file_comes_from_publisher_or_mirror(mirror: str, tmp_path: Path):
    for number, (url, publisher) in enumerate(
        [(None, f"{mirror}/good"), (f"{mirror}/good/", "http://nowhere.invalid")]
    ):
        path = fetched(tmp_path / str(number), url, publisher)
        assert path.read_bytes() == CONTENT
        assert left(path.parent) == {FILE.name}


def test_file_address_takes_folder_or_file(tmp_path: Path):
    source = tmp_path / "mirror ä"
    source.mkdir()
    (source / FILE.name).write_bytes(CONTENT)
    for number, url in enumerate([source.as_uri(), f"{source.as_uri()}/", f"file://localhost{source.as_uri()[7:]}"]):
        assert fetched(tmp_path / str(number), url).read_bytes() == CONTENT
    assert fetched(tmp_path / "a", (source / FILE.name).as_uri()).read_bytes() == CONTENT


def test_whole_file_is_not_fetched_again(tmp_path: Path):
    (tmp_path / FILE.name).write_bytes(CONTENT)
    assert fetched(tmp_path, "file:///nowhere") == tmp_path / FILE.name


@pytest.mark.parametrize(
    ("kind", "cause"),
    [
        ("404", "HTTP status 404 (Not Found)"),
        ("503", "HTTP status 503 (Service Unavailable)"),
        ("other", "its md5 is "),
        ("cut", "the connection ended after 4000 of 9000 bytes"),
        ("silent", "no answer for 0.2 s"),
    ],
)
def test_cause_of_a_failure_is_named(
    mirror: str, tmp_path: Path, kind: str, cause: str, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(download, "TIMEOUT", 0.2 if kind == "silent" else 60)
    url = f"{mirror}/{kind}"
    with pytest.raises(ValueError, match="could not fetch") as error:
        fetched(tmp_path / "new", url)
    start = f"dataset.url={url}: could not fetch the set into {tmp_path}/new: {FILE.name} from {url}/{FILE.name}: "
    assert str(error.value).startswith(start + cause)
    assert "\n" not in str(error.value)
    assert left(tmp_path / "new") == set()


def refused() -> str:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{free.getsockname()[1]}"


def test_unreachable_hosts_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    with pytest.raises(ValueError, match=r"^dataset.download=true: could not fetch the set .*: Connection refused$"):
        fetched(tmp_path, None, refused())

    def unknown(*args: object, **kwargs: object) -> None:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", unknown)
    with pytest.raises(ValueError, match=r"^dataset.url=.*: the name of the host is not known \(Name or .*\); is this"):
        fetched(tmp_path, "https://mirror.invalid/x")


def test_missing_file_and_folder_are_named(tmp_path: Path):
    with pytest.raises(
        ValueError, match=r"^dataset.url=file:///nowhere: .*: No such file or directory: /nowhere/set.bin$"
    ):
        fetched(tmp_path, "file:///nowhere")
    (tmp_path / "file").touch()
    with pytest.raises(ValueError, match=r"Not a directory: .*/file/below$"):
        fetched(tmp_path / "file" / "below", "file:///nowhere")


def test_full_disk_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    (tmp_path / "source").mkdir()
    (tmp_path / "source" / FILE.name).write_bytes(CONTENT)

    def full(self: Path, target: Path) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(Path, "replace", full)
    with pytest.raises(ValueError, match=r"the disk is full \(No space left on device\)$"):
        fetched(tmp_path / "new", (tmp_path / "source").as_uri())
    assert left(tmp_path / "new") == set()


@pytest.mark.parametrize(
    "url",
    [
        "mirror",
        "ftp://host/x",
        "file:relative",
        "file://host/x",
        "https://",
        "http://a b/",
        "http://[::1",
        "",
        3,
        "s3://b",
        "file://",
    ],
)
def test_other_addresses_are_refused(url: object):
    with pytest.raises(ValueError, match=r"^dataset.url=.*; allowed: (https://, http://|file://)"):
        check_url(url)


def test_addresses_are_taken():
    for url in (None, "https://host/x", "http://host:80/x/", "file:///mnt/x", "file://localhost/mnt"):
        assert check_url(url) == url
