"""What the code must look like, beyond what ruff and mypy can see."""

from __future__ import annotations

import ast
import collections
import importlib
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import TypeAlias

import pytest

REPOSITORY = Path(__file__).resolve().parent.parent
SOURCE = REPOSITORY / "src" / "tabor"
FILES = sorted(SOURCE.rglob("*.py"))
LONGEST_FILE, LONGEST_BODY, ASSERTS_ALLOWED = 300, 50, 2

Definition: TypeAlias = ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef

each_file = pytest.mark.parametrize("path", FILES, ids=lambda path: path.relative_to(SOURCE).as_posix())


def parse(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


def definitions(node: ast.AST, prefix: str = "") -> Iterator[tuple[str, Definition]]:
    """All functions and classes at the top level and in classes, with their dotted names."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, Definition):
            name = prefix + child.name
            yield name, child
            if isinstance(child, ast.ClassDef):
                yield from definitions(child, name + ".")


def public(name: str) -> bool:
    return not any(part.startswith("_") for part in name.split("."))


def test_there_is_source_to_look_at() -> None:
    assert len(FILES) > 30
    assert sum(1 for path in FILES for _ in definitions(parse(path))) > 150


def test_import_contracts() -> None:
    """In a process of its own: import-linter disables the loggers of all others."""
    command: list[str | Path] = [Path(sys.executable).with_name("lint-imports"), "--no-cache"]
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout


@each_file
def test_file_length(path: Path) -> None:
    assert len(path.read_text(encoding="utf-8").splitlines()) <= LONGEST_FILE


@each_file
def test_function_bodies(path: Path) -> None:
    """The body is what follows the docstring."""
    functions = [node for node in ast.walk(parse(path)) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)]
    lengths = {}
    for function in functions:
        body = function.body[1:] if ast.get_docstring(function) is not None else function.body
        lengths[function.name] = (body[-1].end_lineno or 0) - body[0].lineno + 1 if body else 0
    assert {name: length for name, length in lengths.items() if length > LONGEST_BODY} == {}


@each_file
def test_docstrings(path: Path) -> None:
    module = parse(path)
    bare = [name for name, node in definitions(module) if public(name) and ast.get_docstring(node) is None]
    assert bare == []
    assert ast.get_docstring(module) is not None
    assert not [
        name
        for name, node in definitions(module)
        if public(name) and (ast.get_docstring(node) or "").strip().lower().startswith(("placeholder", "todo"))
    ]


@each_file
def test_nothing_is_unpickled(path: Path) -> None:
    calls = [node for node in ast.walk(parse(path)) if isinstance(node, ast.Call)]
    named = {ast.unparse(call.func): call for call in calls}
    forbidden = (
        r"(c?pickle|dill|joblib|cloudpickle|torch\.jit|torch\.export|torch\.package)\.(load\w*|Unpickler|\w*Importer)"
    )
    at_the_users_word = ["torch.jit.load"] if path.name == "torchscript.py" else []
    assert [name for name in named if re.fullmatch(forbidden, name)] == at_the_users_word
    assert not [call for call in calls for keyword in call.keywords if keyword.arg == "allow_pickle"]
    for call in (call for name, call in named.items() if name == "torch.load"):
        given = {keyword.arg: ast.unparse(keyword.value) for keyword in call.keywords}
        assert path.name in ("checkpoint.py", "unpickle.py")
        assert given["weights_only"] == str(path.name == "checkpoint.py")


def test_only_a_process_of_its_own_unpickles() -> None:
    """`tabor.models.unpickle` is run by `python -m`, and imported by nothing."""
    importing = [
        path for path in FILES if re.search(r"import[^\n]*\bunpickle\b|models\.unpickle import", path.read_text())
    ]
    assert importing == []


@each_file
def test_no_code_from_text(path: Path) -> None:
    called = {
        node.func.id for node in ast.walk(parse(path)) if isinstance(node, ast.Call) and isinstance(node.func, ast.Name)
    }
    assert called.isdisjoint({"eval", "exec", "compile", "__import__"})


def test_every_constant_is_used() -> None:
    texts = [path.read_text(encoding="utf-8") for path in FILES]
    named = {name for text in texts for name in re.findall(r"^([A-Z][A-Z0-9_]+)(?:: [^=\n]+)? = ", text, re.MULTILINE)}
    words = collections.Counter(word for text in texts for word in re.findall(r"\w+", text))
    assert len(named) > 100
    assert {name for name in named if words[name] < 2} == set()


def test_no_assert_on_input() -> None:
    asserts = []
    for path in FILES:
        lines = path.read_text(encoding="utf-8").splitlines()
        asserts += [lines[node.lineno - 1] for node in ast.walk(parse(path)) if isinstance(node, ast.Assert)]
    assert [line for line in asserts if "# noqa: S101" not in line] == []
    assert len(asserts) <= ASSERTS_ALLOWED


@each_file
def test_the_command_line_alone_prints_and_reads_arguments(path: Path) -> None:
    if path.name in ("cli.py", "console.py"):
        return
    assert not re.findall(r"sys\.(argv|stdout|exit)\b|(?<![\w.])print\(", path.read_text(encoding="utf-8"))


@each_file
def test_no_global_seeding(path: Path) -> None:
    """The global generators are touched only in `draws.seeded`, which gives the caller's state back."""
    text = path.read_text(encoding="utf-8")
    assert not re.findall(r"\brandom\.seed\(|np\.random\.\w+\(|(?:cuda|torch)\.manual_seed\(|fork_rng", text)
    assert "default_generator" not in text or path.name == "draws.py"


def test_every_module_has_its_place_in_the_contract_of_imports() -> None:
    settings = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["tool"]["importlinter"]
    (one_way,) = [c for c in settings["contracts"] if c["name"] == "Data flows one way"]
    there = {
        f"tabor.{path.stem}" for path in SOURCE.iterdir() if path.suffix == ".py" or (path / "__init__.py").exists()
    }
    assert sorted(there - {"tabor.__init__"}) == sorted([*one_way["source_modules"], *one_way["forbidden_modules"]])


def test_every_public_name_can_be_had() -> None:
    tabor = importlib.import_module("tabor")
    assert set(tabor.__all__) <= set(dir(tabor))
    for name in tabor.__all__:
        assert getattr(tabor, name) is not None
    with pytest.raises(AttributeError, match="has no attribute 'nothing'"):
        tabor.nothing  # noqa: B018 (reading it is the test)


def test_no_path_of_one_machine() -> None:
    """Nothing in the repository names a folder that exists on its author's machine only."""
    homes = re.compile(r"(?<![\w./])/(?:home|Users|root|work)/\w")
    named = [
        f"{path.relative_to(REPOSITORY)}: {line.strip()}"
        for folder in ("src", "tests", "docs")
        for path in sorted((REPOSITORY / folder).rglob("*"))
        if path.suffix in {".py", ".md", ".toml", ".html", ".css", ".json"} and path != Path(__file__)
        for line in path.read_text(encoding="utf-8").splitlines()
        if homes.search(line)
    ]
    assert named == []
