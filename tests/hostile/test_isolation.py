"""The rehearsal: its limits, what becomes of a child that misbehaves, and that nothing but a good answer counts."""

from __future__ import annotations

import contextlib
import importlib
import json
import multiprocessing
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import safetensors.torch
import torch

from tabor.cli import main
from tabor.errors import ModelError
from tabor.models import load_model
from tabor.models.isolation import Limits, may_fork, rehearsed
from tabor.models.onnx_graph.external import MOST_FILES, files_beside
from tabor.models.parts import Given

from .corpus import PROGRAMS
from .makers import TINY, Canary, saved, weights

SECOND, AMPLE = (Limits(memory=2**30, seconds=seconds) for seconds in (1, 60))
Child = Callable[[str], None]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """An honest checkpoint."""
    path = tmp_path / "tiny.pt"
    path.write_bytes(saved(weights()))
    return path


@pytest.fixture
def child(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Child:
    """Puts a shell script in the place of the Python that reads the file."""

    def become(script: str) -> None:
        program = tmp_path / "python"
        program.write_text(f"#!/bin/sh\n{script}\n")
        program.chmod(0o755)
        monkeypatch.setattr(sys, "executable", str(program))
        monkeypatch.setattr("tabor.models.isolation.may_fork", lambda: False)

    return become


@pytest.fixture
def fork(monkeypatch: pytest.MonkeyPatch) -> Callable[[Callable[[], None]], None]:
    """Puts a function in the place of the reader, in a child that is a fork of this process."""

    def perform(instead: Callable[[], None]) -> None:
        monkeypatch.setattr("tabor.models.rehearsal.perform", instead)
        monkeypatch.setattr("tabor.models.isolation.may_fork", lambda: True)

    return perform


def rehearse(path: Path, limits: Limits = SECOND) -> None:
    """A rehearsal and nothing else."""
    with rehearsed(path, Given(), limits):
        pass


def test_the_same_model_with_a_rehearsal_and_without(path: Path) -> None:
    how = {"arch": TINY.name, "channels": 1, "size": TINY.size}
    isolated, plain = load_model(path, **how), load_model(path, **how, isolate=False)  # type: ignore[arg-type]
    assert isolated.sha256 == plain.sha256
    assert isolated.architecture == plain.architecture
    images = torch.rand(2, 1, 12, 12, generator=torch.Generator().manual_seed(0))
    assert torch.equal(isolated(images), plain(images))


def test_what_the_reader_says_is_passed_on(tmp_path: Path) -> None:
    path, dead = tmp_path / "\x1b[2J.pt", tmp_path / "dead"
    path.write_bytes(saved({"w": Canary(dead)}))
    with pytest.raises(
        ModelError, match=r"\\x1b\[2J\.pt is a checkpoint of torch\.save that would call .*pathlib"
    ) as caught:
        load_model(path, arch=TINY.name)
    assert str(caught.value).isprintable()
    assert not dead.exists()


def test_safetensors_files_need_none(tmp_path: Path, child: Child) -> None:
    child(f"touch {tmp_path / 'started'}")
    path = tmp_path / "model.bin"
    safetensors.torch.save_file(weights(), path)
    load_model(path, arch=TINY.name, channels=1, size=TINY.size)
    assert not (tmp_path / "started").exists()


def folder(path: Path) -> None:
    path.mkdir()
    (path / "config.json").write_text("{}")
    safetensors.torch.save_file(weights(), path / "model.safetensors")


def program(name: str) -> Callable[[Path], object]:
    return lambda path: path.write_bytes(PROGRAMS[name][0](path.parent / "dead"))


@pytest.mark.parametrize(
    "write",
    [
        pytest.param(program("exported: operator: loading a library"), id="exported"),
        pytest.param(program("ONNX: endless convolutions"), id="ONNX"),
        pytest.param(folder, id="Hugging Face"),
    ],
)
def test_what_has_a_parser_or_settings_of_its_own_needs_one(
    write: Callable[[Path], object], tmp_path: Path, child: Child
) -> None:
    child("kill -SEGV $$")
    write(tmp_path / "model")
    with pytest.raises(ModelError, match="its reader crashed"):
        load_model(tmp_path / "model")


@pytest.mark.slow
def test_a_folder_whose_network_takes_for_ever_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A pixel a patch: few weights, and as many comparisons as pairs of pixels."""
    transformers = pytest.importorskip("transformers")
    sizes = {"hidden_size": 2, "num_hidden_layers": 1, "num_attention_heads": 1, "intermediate_size": 2}
    config = transformers.ViTConfig(image_size=512, patch_size=1, num_labels=2, **sizes)
    transformers.ViTForImageClassification(config).save_pretrained(tmp_path)
    said = {"image_mean": [0.5] * 3, "image_std": [0.5] * 3, "size": {"height": 512, "width": 512}}
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(said))
    limits = Limits(memory=2**30, seconds=20)
    monkeypatch.setattr("tabor.models.load.Limits.of", lambda *_, **__: limits)
    with pytest.raises(ModelError, match=r"is not opened: (to read it took more than 20 s|its reader crashed)"):
        load_model(tmp_path)


@pytest.mark.parametrize(
    ("script", "told"),
    [
        pytest.param("kill -SEGV $$", r"its reader crashed \(SIGSEGV\), or ran out of memory", id="crash"),
        pytest.param("kill -KILL $$", r"its reader crashed \(SIGKILL\)", id="out of memory"),
        pytest.param("kill -XCPU $$", "took more than 1 s", id="processor time"),
        pytest.param("sleep 60", "took more than 1 s", id="hang"),
        pytest.param("trap '' TERM INT HUP; while :; do :; done", "took more than 1 s", id="hang that will not end"),
        pytest.param("exec yes", "took more than 1 s", id="endless answer"),
        pytest.param("exit 0", "gave no answer", id="no answer"),
        pytest.param("exit 3", r"crashed \(code 3\)", id="an exit code"),
        pytest.param("echo nonsense", "gave no answer", id="no JSON"),
        pytest.param("echo '{}'", "gave no answer", id="half an answer"),
        pytest.param("""echo '"error"'""", "gave no answer", id="text"),
        pytest.param("head -c 9999 /dev/zero | tr '\\0' '['", "gave no answer", id="deep JSON"),
        pytest.param("""echo '{"error": null}'; exit 1""", r"crashed \(code 1\)", id="fine, but not"),
        pytest.param("""echo '{"error": null} and more'""", "gave no answer", id="fine, and more"),
        pytest.param(
            r"""echo '{"error": "a\\u001b[2J\\nb"}'""", r"^a\\x1b\[2J\\nb$", id="an error with control characters"
        ),
        pytest.param("""echo '{"error": {"a": [1]}}'""", r"^\{'a': \[1\]\}$", id="an error that is no text"),
    ],
)
def test_a_child_that_misbehaves(script: str, told: str, path: Path, child: Child) -> None:
    pids = path.parent / "pids"
    child(f"echo $$ > {pids}\n{script}")
    with pytest.raises(ModelError, match=told) as caught:
        rehearse(path)
    assert str(caught.value).isprintable()
    _gone(pids)


def hang() -> None:
    """Does not end, whoever asks."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    while True:
        time.sleep(1)


def pretend() -> None:
    """Says that all went well, and then that it did not."""
    os.write(1, b'{"error": null}')
    os._exit(1)


@pytest.mark.parametrize(
    ("instead", "told"),
    [
        pytest.param(lambda: os.kill(os.getpid(), signal.SIGSEGV), r"its reader crashed \(SIGSEGV\)", id="crash"),
        pytest.param(lambda: os.kill(os.getpid(), signal.SIGXCPU), "took more than 1 s", id="processor time"),
        pytest.param(hang, "took more than 1 s", id="hang that will not end"),
        pytest.param(lambda: None, "gave no answer", id="no answer"),
        pytest.param(pretend, r"crashed \(code 1\)", id="fine, but not"),
        pytest.param(lambda: 1 / 0, r"crashed \(code 1\)", id="an exception"),
    ],
)
def test_a_fork_that_misbehaves(
    instead: Callable[[], None], told: str, path: Path, fork: Callable[[Callable[[], None]], None]
) -> None:
    fork(instead)
    with pytest.raises(ModelError, match=told):
        rehearse(path)
    assert not multiprocessing.active_children()


def test_a_fork_has_limits_and_one_thread_and_writes_nowhere(
    path: Path, fork: Callable[[Callable[[], None]], None], capfd: pytest.CaptureFixture[str]
) -> None:
    def tell() -> None:
        os.write(2, b"a library's chatter")
        alone = os.getpgid(0) == os.getpid() and torch.get_num_threads() == 1
        limits = json.loads(os.read(0, 10_000))["limits"]
        os.write(1, json.dumps({"error": f"{alone} {limits}"}).encode())
        os._exit(0)

    fork(tell)
    with pytest.raises(ModelError, match=r"True \{'memory': 1073741824, 'seconds': 1\}"):
        rehearse(path)
    assert capfd.readouterr() == ("", "")


def test_what_a_parser_prints_is_no_answer(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def read(*_: object) -> None:
        os.write(1, b'{"error": null}')
        os._exit(0)

    monkeypatch.setattr("tabor.models.isolation.may_fork", lambda: True)
    monkeypatch.setattr("tabor.models.rehearsal.rehearse", read)
    with pytest.raises(ModelError, match="gave no answer"):
        rehearse(path, AMPLE)


def test_what_is_imported_is_not_compiled_for_later(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the limit of written bytes cuts off would stay so."""
    (path.parent / "fresh.py").touch()
    monkeypatch.syspath_prepend(path.parent)
    monkeypatch.setattr(sys, "dont_write_bytecode", False)
    monkeypatch.setattr("tabor.models.isolation.may_fork", lambda: True)
    monkeypatch.setattr("tabor.models.rehearsal.rehearse", lambda *_: importlib.import_module("fresh"))
    rehearse(path, AMPLE)
    assert not (path.parent / "__pycache__").exists()


@pytest.mark.parametrize("forked", [True, False])
def test_either_child_reads_and_refuses(forked: bool, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tabor.models.isolation.may_fork", lambda: forked)
    torch.nn.functional.conv2d(torch.rand(64, 3, 32, 32), torch.rand(8, 3, 3, 3))  # its threads are not the fork's
    load_model(path, arch=TINY.name, channels=1, size=TINY.size)
    path.write_bytes(saved({"w": Canary(path.parent / "dead")}))
    with pytest.raises(ModelError, match="would call"):
        load_model(path, arch=TINY.name)
    assert not (path.parent / "dead").exists()


def test_with_another_thread_there_is_no_fork() -> None:
    done = threading.Event()
    other = threading.Thread(target=done.wait)
    other.start()
    try:
        assert not may_fork()
    finally:
        done.set()
        other.join()


def test_a_worker_of_a_pool_reads_models_too(path: Path) -> None:
    def work() -> None:
        load_model(path, arch=TINY.name, channels=1, size=TINY.size)

    worker = multiprocessing.get_context("fork").Process(target=work, daemon=True)
    worker.start()
    worker.join()
    assert worker.exitcode == 0


def test_a_good_answer(path: Path, child: Child) -> None:
    child("""cat > order; echo '{"error": null}'""")
    folder = Path.cwd()
    os.chdir(path.parent)
    try:
        with rehearsed(path, Given(arch="timm:x", size=(3, 4)), SECOND):
            pass
    finally:
        os.chdir(folder)
    order = json.loads((path.parent / "order").read_text())
    assert order["path"] == str(path)
    assert order["limits"] == {"memory": 2**30, "seconds": 1}
    assert (order["given"]["arch"], order["given"]["size"]) == ("timm:x", [3, 4])


def test_nothing_of_a_child_that_took_too_long_stays(path: Path, child: Child) -> None:
    pids = path.parent / "pids"
    child(f"sleep 60 & echo $! >> {pids}; echo $$ >> {pids}; wait")
    with pytest.raises(ModelError, match="more than 1 s"):
        rehearse(path)
    _gone(pids)


def test_nothing_of_a_child_stays_when_the_caller_is_interrupted(path: Path, child: Child) -> None:
    pids = path.parent / "pids"
    child(f"echo $$ > {pids}; exec sleep 60")

    def interrupt() -> None:
        while not pids.exists() or not pids.read_text():
            time.sleep(0.01)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt), rehearsed(path, Given(), SECOND):
        interrupt()
    _gone(pids)


def _gone(pids: Path) -> None:
    for pid in map(int, pids.read_text().split()):
        for _ in range(500):  # one whose parent is gone waits for init
            if not _alive(pid):
                break
            time.sleep(0.01)
        assert not _alive(pid)


def _alive(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return False
    return state != "Z"


def test_a_file_that_changes_after_its_rehearsal_is_not_read(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    dead = path.parent / "dead"

    @contextlib.contextmanager
    def rehearsal(*_: object) -> Iterator[None]:
        yield
        before = path.stat()
        path.write_bytes(saved({"w": Canary(dead)}))
        os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))

    def read(*_: object) -> None:
        raise AssertionError

    monkeypatch.setattr("tabor.models.load.rehearsed", rehearsal)
    monkeypatch.setattr("tabor.models.load.read_checkpoint", read)
    with pytest.raises(ModelError, match="changed while it was read"):
        load_model(path, arch=TINY.name)


def test_on_the_command_line(path: Path, child: Child, capsys: pytest.CaptureFixture[str]) -> None:
    path.write_bytes(saved({"w": Canary(path.parent / "dead")}))
    child("kill -SEGV $$")
    command = ["scan", str(path), "--data", "digits", "--size", "12", "--arch", TINY.name]
    assert main(command) == 2
    assert "its reader crashed (SIGSEGV)" in capsys.readouterr().err
    assert main([*command, "--no-isolate"]) == 2
    assert "would call" in capsys.readouterr().err
    assert not (path.parent / "dead").exists()


@pytest.mark.parametrize("forked", [True, False])
def test_a_folder_of_strangers_is_no_place_for_modules(
    forked: bool, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tabor.models.isolation.may_fork", lambda: forked)
    dead = path.parent / "dead"
    for name in ("torch", "json", "tabor", "resource"):
        (path.parent / f"{name}.py").write_text(f"open({str(dead)!r}, 'w')")
    monkeypatch.chdir(path.parent)
    load_model(path, arch=TINY.name, channels=1, size=TINY.size)
    assert not dead.exists()


def test_what_a_file_warrants_grows_with_it() -> None:
    small, large, endless = Limits.of(1000), Limits.of(10**8), Limits.of(10**15)
    assert small.memory < 1.1 * 2**30
    assert small.seconds < 30
    assert large.memory > 5 * 10**8
    assert large.seconds >= small.seconds + 10
    assert endless.memory < os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    assert endless.seconds <= 600


def test_external_data_counts(tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    for name, size in {"weights.bin": 3_000_000, "small.bin": 3_000, "other.bin": 4_000_000}.items():
        (tmp_path / name).write_bytes(bytes(size))
    named = b"".join(
        b"j\x10\x0a\x08location\x12" + bytes([len(n)]) + n for n in (b"weights.bin", b"small.bin", b"/etc/passwd")
    )
    path.write_bytes(b"\x08\x07 other.bin " + named + b"behind")
    assert [other.name for other in files_beside(path)] == ["small.bin", "weights.bin"]


def test_a_file_with_many_names_counts_once(tmp_path: Path) -> None:
    (tmp_path / "big.bin").write_bytes(bytes(1000))
    entries = (b"\x0a\x08location\x12" + bytes([len(n)]) + n for n in (b"big.bin", b"./big.bin", b".//.//big.bin"))
    (tmp_path / "model.onnx").write_bytes(b"\x08\x07" + b"".join(entries) + b"behind")
    assert files_beside(tmp_path / "model.onnx") == [tmp_path / "big.bin"]


def test_no_endless_files_are_looked_for(tmp_path: Path) -> None:
    names = (str(number).encode() for number in range(MOST_FILES + 1))
    entries = b"".join(b"\x0a\x08location\x12" + bytes([len(name)]) + name for name in names)
    (tmp_path / "model.onnx").write_bytes(b"\x08\x07" + entries)
    with pytest.raises(ModelError, match="keeps weights in 10,001 files"):
        files_beside(tmp_path / "model.onnx")


LIMITED = """
import json, resource, sys
from pathlib import Path
from tabor.models import rehearsal
heavy = {"timm", "torchvision", "transformers", "onnx", "onnxruntime", "scipy", "pandas"} & set(sys.modules)
rehearsal.limit(memory=2**28, seconds=50)
try:
    bytearray(2**29)
    taken = True
except MemoryError:
    taken = False
bytearray(2**26)
try:
    Path(sys.argv[1]).write_bytes(bytes(10**6))
    written = True
except OSError:
    written = False
limits = [resource.getrlimit(kind) for kind in (resource.RLIMIT_CORE, resource.RLIMIT_CPU)]
print(json.dumps([sorted(heavy), taken, written, limits]))
"""


def test_the_limits_hold_and_little_is_imported(tmp_path: Path) -> None:
    command = [sys.executable, "-c", LIMITED, str(tmp_path / "large")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert json.loads(done.stdout) == [[], False, False, [[0, 0], [50, 55]]], done.stderr
