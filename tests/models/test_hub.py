"""Models by their names on the hub, from a server of our own: what is fetched, what is recorded, what goes wrong."""

from __future__ import annotations

import hashlib
import json
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import torch

from tabor.errors import ModelError
from tabor.models import load_model
from tabor.models.huggingface import described
from tabor.models.parts import Given

from .hub_folders import transformers_network, write_folder

huggingface_hub = pytest.importorskip("huggingface_hub")
pytest.importorskip("transformers")

COMMIT = "1234567890abcdef1234567890abcdef12345678"
DATA = ["config.json", "model.safetensors", "preprocessor_config.json"]


class Hub(BaseHTTPRequestHandler):
    """As much of the hub as huggingface_hub asks for, with one public repository and one that is gated."""

    folder: Path
    asked: list[str]

    def do_HEAD(self) -> None:
        self.answer(body=False)

    def do_GET(self) -> None:
        self.answer(body=True)

    def answer(self, *, body: bool) -> None:
        """Answers for the repository's state, its files' list, and its files."""
        path = self.path.partition("?")[0]
        if not path.startswith(("/api/models/user/name", "/user/name/")):
            kind = "GatedRepo" if "gated" in path else "RepoNotFound"
            self.reply(403 if "gated" in path else 404, b"{}", {"X-Error-Code": kind}, body)
        elif path.startswith("/user/name/resolve/"):
            name = path.split("/", 5)[5]
            self.asked.append(name)
            content = (self.folder / name).read_bytes()
            etag = hashlib.sha1(content, usedforsecurity=False).hexdigest()
            self.reply(200, content, {"ETag": f'"{etag}"', "X-Repo-Commit": COMMIT}, body)
        else:
            self.reply(200, json.dumps(self.described("/tree/" in path)).encode(), {}, body)

    def described(self, tree: bool) -> Any:
        """The repository, or the list of its files."""
        if not tree:
            return {"id": "user/name", "sha": COMMIT, "siblings": [], "private": False}
        files = sorted(self.folder.iterdir())
        return [{"type": "file", "path": f.name, "size": f.stat().st_size, "oid": f.name.ljust(40, "0")} for f in files]

    def reply(self, code: int, content: bytes, headers: dict[str, str], body: bool) -> None:
        """Sends it."""
        self.send_response(code)
        for name, value in (
            {"Content-Length": str(len(content)), "Content-Type": "application/json"} | headers
        ).items():
            self.send_header(name, value)
        self.end_headers()
        if body:
            self.wfile.write(content)

    def log_message(self, *arguments: object) -> None:
        """Says nothing."""


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[type[Hub]]:
    """A hub with a folder of transformers that also holds what nobody should fetch; the cache is empty."""
    folder = write_folder(tmp_path / "repository", transformers_network("resnet"))
    for name in ("pytorch_model.bin", "modeling_evil.py", "adapter_model.safetensors", "README.md"):
        (folder / name).write_text("evil")
    handler = type("OneHub", (Hub,), {"folder": folder, "asked": []})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    address = f"http://127.0.0.1:{server.server_port}"
    # The library reads its environment (HF_ENDPOINT, HF_HOME) once, when it is imported.
    monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", address)
    monkeypatch.setattr(
        huggingface_hub.constants, "HUGGINGFACE_CO_URL_TEMPLATE", address + "/{repo_id}/resolve/{revision}/{filename}"
    )
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)
    yield handler
    server.shutdown()
    server.server_close()


def test_only_data_is_fetched_and_the_commit_is_recorded(hub: type[Hub]) -> None:
    loaded = load_model("hub:user/name")
    assert sorted(set(hub.asked)) == DATA
    assert loaded.source == f"hub:user/name@{COMMIT}"
    assert loaded.sha256 == hashlib.sha256((hub.folder / "model.safetensors").read_bytes()).hexdigest()
    images = torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    assert torch.equal(loaded(images), load_model(hub.folder)(images))


def test_the_architecture_alone_needs_no_weights(hub: type[Hub], tmp_path: Path) -> None:
    found = described("hub:user/name", Given()).architecture
    assert found == load_model(hub.folder).architecture
    assert sorted(set(hub.asked)) == ["config.json", "preprocessor_config.json"]
    loaded = load_model(hub.folder / "model.safetensors", arch="hub:user/name@main")
    assert loaded.architecture == found
    assert sorted(set(hub.asked)) == ["config.json", "preprocessor_config.json"]


def test_what_was_fetched_is_there_without_the_network(hub: type[Hub], monkeypatch: pytest.MonkeyPatch) -> None:
    load_model("hub:user/name")
    hub.asked.clear()
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    assert load_model("hub:user/name").source == f"hub:user/name@{COMMIT}"
    assert hub.asked == []
    with pytest.raises(ModelError, match="cannot fetch hub:user/another: "):
        load_model("hub:user/another")


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        pytest.param("user/missing", "RepositoryNotFoundError", id="not found"),
        pytest.param("user/gated", "GatedRepoError", id="gated"),
        pytest.param("user//name/../x", "HFValidationError", id="no name"),
        pytest.param("\x1b[2J", "HFValidationError", id="control characters"),
        pytest.param("null\0byte", "HFValidationError", id="null byte"),
        pytest.param("", "HFValidationError", id="nothing"),
    ],
)
@pytest.mark.usefixtures("hub")
def test_what_cannot_be_had(name: str, reason: str) -> None:
    with pytest.raises(ModelError, match=f"cannot fetch hub:.*{reason}") as caught:
        load_model(f"hub:{name}")
    assert str(caught.value).isprintable()


def test_a_server_that_is_not_there(hub: type[Hub], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", "http://127.0.0.1:9")
    with pytest.raises(ModelError, match="cannot fetch hub:user/name: ") as caught:
        load_model("hub:user/name")
    assert str(caught.value).isprintable()
    assert hub.asked == []


def test_a_repository_without_safetensors(hub: type[Hub]) -> None:
    (hub.folder / "model.safetensors").unlink()
    with pytest.raises(ModelError, match=r"has no model\.safetensors"):
        load_model("hub:user/name")
    assert "pytorch_model.bin" not in hub.asked


def test_a_folder_of_that_name_comes_first(hub: type[Hub], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(hub.folder.parent)
    assert load_model("hub:repository").source == "repository"
    assert hub.asked == []


def test_without_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(ModelError, match=r"needs huggingface_hub: pip install 'tabor\[hub\]'"):
        load_model("hub:user/name")
