"""Texts as they come: downloads that break off, files, folders, gzip, odd bytes."""

import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from llm_jax.base.errors import DataError
from llm_jax.config.load import to_dict
from llm_jax.config.run import Config, DataConfig
from llm_jax.data import corpora, store
from llm_jax.data.corpora import read_corpus
from llm_jax.data.download import Source, download
from llm_jax.language_model.model import LanguageModel
from llm_jax.runs import data
from llm_jax.tokenization.plain import ByteTokenizer


class _Files(BaseHTTPRequestHandler):
    content = bytes(range(256)) * 2000
    cut = False

    def do_GET(self) -> None:
        first = int((self.headers.get("Range") or "bytes=0-").split("=")[1].rstrip("-"))
        body = self.content[first:]
        self.send_response(206 if first else 200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body[: len(body) // 2] if self.cut else body)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def server() -> Iterator[str]:
    with ThreadingHTTPServer(("127.0.0.1", 0), _Files) as httpd:
        thread = threading.Thread(target=httpd.serve_forever)
        thread.start()
        _Files.cut = False
        yield f"http://127.0.0.1:{httpd.server_port}/file"
        httpd.shutdown()
        thread.join()


def the_source(url: str) -> Source:
    import hashlib

    return Source(url, hashlib.sha256(_Files.content).hexdigest())


def test_a_cut_download_resumes_where_it_broke_off(server: str, tmp_path: Path) -> None:
    target = tmp_path / "a" / "file.txt"
    _Files.cut = True
    with pytest.raises(DataError, match="try again"):
        download(the_source(server), target, print)
    half = (tmp_path / "a" / "file.txt.part").stat().st_size
    assert half == len(_Files.content) // 2
    assert not target.exists()
    _Files.cut = False
    assert download(the_source(server), target, print).read_bytes() == _Files.content
    assert not list(tmp_path.rglob("*.part"))


def test_a_download_of_other_content_is_not_kept(server: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="must have SHA-256"):
        download(Source(server, "0" * 64), tmp_path / "file", print)
    assert list(tmp_path.iterdir()) == []


def test_a_downloaded_file_that_changed_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(DataError, match="delete it"):
        download(Source("https://nowhere.invalid/x", "0" * 64), tmp_path / "file", print)


def test_folders_gzip_and_byte_order_marks_are_read(tmp_path: Path) -> None:
    import gzip

    (tmp_path / "b.txt").write_bytes(b"\xef\xbb\xbfsecond")
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "first.txt.gz").write_bytes(gzip.compress(b"first"))
    (tmp_path / "picture.png").write_bytes(b"\x89PNG")
    corpus = read_corpus(str(tmp_path), downloads=tmp_path, errors="strict", report=print)
    assert corpus.text == "first\nsecond"


def test_bytes_that_are_not_utf8_can_be_replaced_and_are_counted(tmp_path: Path) -> None:
    (tmp_path / "x.txt").write_bytes(b"caf\xe9 and na\xefve")
    remarks: list[str] = []
    corpus = read_corpus(str(tmp_path / "x.txt"), downloads=tmp_path, errors="replace", report=remarks.append)
    assert corpus.text == "caf\ufffd and na\ufffdve"
    assert "2 stretches" in remarks[0]


def test_evaluating_a_named_corpus_looks_for_it_where_training_does(monkeypatch: pytest.MonkeyPatch) -> None:
    looked: list[Path] = []

    def reading(corpus: str, *, downloads: Path, **_: object) -> None:
        looked.append(downloads)
        raise DataError(corpus)

    monkeypatch.setattr(data, "read_corpus", reading)
    monkeypatch.setattr(corpora, "read_corpus", reading)
    config = Config(data=DataConfig(prepared=Path("p")))
    model = LanguageModel(config.model, {}, ByteTokenizer(), {"config": to_dict(config)})
    with pytest.raises(DataError):
        data.score_text(model, Path("the_verdict"))
    with pytest.raises(DataError):
        store.prepare_store(config.data, print)
    assert looked == [Path("p/downloads")] * 2


@pytest.mark.parametrize("name", corpora.EMBEDDED)
def test_embedded_texts_need_no_network(name: str, tmp_path: Path) -> None:
    found = read_corpus(name, downloads=tmp_path / "none", errors="strict", report=print)
    assert found.name == name
    assert len(found.text.encode()) > 20_000
    assert not (tmp_path / "none").exists()


def test_tiny_shakespeare_is_the_one_that_everybody_measures_on(tmp_path: Path) -> None:
    found = read_corpus("tinyshakespeare", downloads=tmp_path, errors="strict", report=print)
    wanted = "86c4e6aa9db7c042ec79f339dcb96d42b0075e16b8fc2e86bf0ca57e2dc565ed"
    assert corpora.text_digest(found.text) == wanted
