"""What the compiled wheel is made of, as far as it can be seen without a compiler."""

import ast
import shutil
import subprocess
import sys
import threading
import tomllib
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import headrace
from tools import bootstrap, c_compiler, compiled

SOURCES = compiled.ROOT / "src" / "headrace"
COMPARISONS = {"__lt__", "__le__", "__gt__", "__ge__", "__ne__"}
NAMES = {f"headrace.{name.replace('/', '.')}" for name in compiled.MODULES}


@pytest.mark.parametrize("name", compiled.MODULES)
def test_no_class_has_a_field_of_a_compiled_class_that_may_not_be_there_yet(name: str):
    """mypyc looks each such class up when the module is imported, and would find a null pointer."""
    tree = ast.parse((SOURCES / f"{name}.py").read_text())
    absent = set(_for_type_checkers(tree))
    fields = [
        f"{cls.name}.{ast.unparse(each.target)}"
        for cls in tree.body
        if isinstance(cls, ast.ClassDef)
        for each in cls.body
        if isinstance(each, ast.AnnAssign)
        and isinstance(each.annotation, ast.Name)
        and each.annotation.id in absent
    ]
    assert fields == []


def _for_type_checkers(tree: ast.Module) -> Iterator[str]:
    """Names of compiled modules that are imported for type checkers alone."""
    for guard in tree.body:
        if isinstance(guard, ast.If) and ast.unparse(guard.test) == "TYPE_CHECKING":
            for each in guard.body:
                if isinstance(each, ast.ImportFrom) and each.module in NAMES:
                    yield from (alias.asname or alias.name for alias in each.names)


def test_no_interpreted_class_derives_from_a_compiled_one():
    """Python refuses such a class when its module is loaded; the compiler does not see it."""
    found = [
        f"{path.relative_to(SOURCES)}: {derived}"
        for path in sorted(SOURCES.rglob("*.py"))
        if str(path.relative_to(SOURCES).with_suffix("")) not in compiled.MODULES
        for derived in _derived_from_compiled(ast.parse(path.read_text()))
    ]
    assert found == []


def _derived_from_compiled(tree: ast.Module) -> Iterator[str]:
    imported = {
        alias.asname or alias.name
        for each in ast.walk(tree)
        if isinstance(each, ast.ImportFrom) and each.module in NAMES
        for alias in each.names
    }
    for each in ast.walk(tree):
        if isinstance(each, ast.ClassDef):
            bases = {ast.unparse(base).partition("[")[0] for base in each.bases}
            if bases & imported:
                yield each.name


def test_a_class_that_derives_from_a_compiled_one_is_found():
    source = "from headrace.core.dispatcher import Dispatcher\nclass Mine(Dispatcher): ...\n"
    assert list(_derived_from_compiled(ast.parse(source))) == ["Mine"]


@pytest.mark.parametrize("name", compiled.MODULES)
def test_no_compiled_record_has_an_order_of_its_own_without_equality(name: str):
    """mypyc fills all six comparisons of a class that writes one. `dataclass` finds an `__eq__`
    there, leaves it, and records of equal values are unequal.
    """
    assert list(_compared_by_identity((SOURCES / f"{name}.py").read_text())) == []


def _compared_by_identity(source: str) -> Iterator[str]:
    for made in ast.parse(source).body:
        if isinstance(made, ast.ClassDef) and _is_record(made):
            written = {each.name for each in made.body if isinstance(each, ast.FunctionDef)}
            if written & COMPARISONS and "__eq__" not in written:
                yield made.name


def _is_record(made: ast.ClassDef) -> bool:
    names = [ast.unparse(each).partition("(")[0] for each in made.decorator_list]
    return bool({"message", "dataclass"} & set(names))


@pytest.mark.parametrize("decorator", ["message", "dataclass(slots=True)"])
def test_a_record_with_an_order_and_no_equality_is_found(decorator: str):
    source = f"@{decorator}\nclass Told:\n    at_s: float\n    def __lt__(self, other): ...\n"
    assert list(_compared_by_identity(source)) == ["Told"]
    assert list(_compared_by_identity(f"{source}    def __eq__(self, other): ...\n")) == []


def test_the_copy_says_that_it_is_compiled(tmp_path: Path):
    project = compiled.lay_out(tmp_path / "project")
    marked = f"{headrace.__version__.partition('+')[0]}+compiled"
    assert f'__version__ = "{marked}"' in (project / "headrace" / "__init__.py").read_text()
    described = tomllib.loads((project / "pyproject.toml").read_text())
    assert described["project"]["version"] == marked
    asked = tomllib.loads((compiled.ROOT / "pyproject.toml").read_text())["project"]
    assert described["project"]["dependencies"] == asked["dependencies"]


def test_the_sources_stay_as_they_are(tmp_path: Path):
    project = compiled.lay_out(tmp_path / "project")
    sources = compiled.ROOT / "src" / "headrace"
    changed = [
        str(path.relative_to(sources))
        for path in sorted(sources.rglob("*.py"))
        if path.read_bytes() != (project / "headrace" / path.relative_to(sources)).read_bytes()
    ]
    assert changed == ["__init__.py"]


# ---------------------------------------------------------------- building and installing


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project whose folders are empty, on a machine where everything can be built at once.

    The file `done` has a line for each wheel that was built and each that was installed.
    """
    for name in ("pyproject.toml", "uv.lock", "README.md", "LICENSE"):
        shutil.copy(compiled.ROOT / name, tmp_path)
    for name in ("src", "tools"):
        ignored = shutil.ignore_patterns("__pycache__")
        shutil.copytree(compiled.ROOT / name, tmp_path / name, ignore=ignored)
    (tmp_path / ".venv").mkdir()
    done = tmp_path / "done"
    done.touch()

    def build_wheel(project: Path) -> Path:
        with done.open("a") as file:
            file.write("built\n")
        wheel = compiled.DIST / "headrace-0.1.0+compiled-cp311-cp311-linux_x86_64.whl"
        wheel.parent.mkdir(exist_ok=True)
        with zipfile.ZipFile(wheel, "w") as archive:
            archive.write(project / "headrace" / "__init__.py", "headrace/__init__.py")
        return wheel

    def install_wheel(_uv: str, wheel: Path, environment: Path) -> None:
        with done.open("a") as file:
            file.write(f"installed {wheel.name}\n")
        (environment / "bin").mkdir(parents=True, exist_ok=True)
        (environment / "bin" / "headrace").touch()

    for module in (bootstrap, compiled):
        monkeypatch.setattr(module, "ROOT", tmp_path)
    for name in ("FOLDER", "SITE", "BUILT", "DIST", "VENV", "STAMP"):
        moved = tmp_path / getattr(compiled, name).relative_to(Path(compiled.__file__).parents[1])
        monkeypatch.setattr(compiled, name, moved)
    monkeypatch.setattr(compiled, "_wheel_of", build_wheel)
    monkeypatch.setattr(bootstrap, "install_wheel", install_wheel)
    monkeypatch.setattr(bootstrap, "find_uv", lambda: "uv")
    monkeypatch.setattr(c_compiler, "missing", lambda: None)
    monkeypatch.setattr(sys, "argv", ["compiled"])
    return tmp_path


def done(machine: Path) -> list[str]:
    """What was done since the last call."""
    lines = (machine / "done").read_text().split("\n")[:-1]
    (machine / "done").write_text("")
    return [line.partition(" ")[0] for line in lines]


def test_one_command_builds_and_installs_and_the_next_does_nothing(machine: Path, capsys):
    compiled.main()
    assert done(machine) == ["built", "installed"]
    assert ".venv-compiled/bin/headrace is ready" in capsys.readouterr().err
    assert (compiled.SITE / "headrace" / "__init__.py").exists()
    compiled.main()
    assert done(machine) == []
    assert "is built from these sources already" in capsys.readouterr().err
    assert list((machine / ".venv").iterdir()) == []


@pytest.mark.parametrize(
    ("name", "first"),
    [
        ("src/headrace/core/dispatcher.py", ["built"]),
        ("tools/written_out.py", ["built"]),
        ("uv.lock", ["installed"]),
        ("README.md", []),
    ],
)
def test_an_edit_has_made_again_what_depends_on_it(machine: Path, name: str, first: list[str]):
    compiled.main()
    done(machine)
    with (machine / name).open("a") as file:
        file.write("# changed\n")
    compiled.main()
    assert done(machine)[:1] == first


def test_so_have_other_options(machine: Path, monkeypatch):
    compiled.main()
    done(machine)
    monkeypatch.setattr(compiled, "COMPILER_OPTIONS", ["-O1"])
    compiled.main()
    assert done(machine)[:1] == ["built"]
    monkeypatch.setenv("CFLAGS", "-march=native")
    compiled.main()
    assert done(machine)[:1] == ["built"]


@pytest.mark.parametrize(
    ("gone", "first"), [(".venv-compiled", "installed"), ("dist", "built"), (".cache", "built")]
)
def test_what_is_gone_is_made_again(machine: Path, gone: str, first: str):
    compiled.main()
    done(machine)
    shutil.rmtree(machine / gone)
    compiled.main()
    assert done(machine)[0] == first
    assert (machine / gone).exists()


def test_an_environment_that_was_not_filled_is_filled_again(machine: Path, monkeypatch):
    compiled.main()
    done(machine)
    (machine / "uv.lock").write_text("changed")

    def fails(*_: object) -> None:
        sys.exit("headrace: uv pip failed as it says above.")

    with monkeypatch.context() as patch:
        patch.setattr(bootstrap, "install_wheel", fails)
        with pytest.raises(SystemExit):
            compiled.main()
    done(machine)
    compiled.main()
    assert done(machine) == ["installed"]


def test_a_machine_that_cannot_build_leaves_everything_as_it_was(machine, monkeypatch, capsys):
    compiled.main()
    with (machine / "src" / "headrace" / "__init__.py").open("a") as file:
        file.write("# changed\n")
    before = everything(machine)
    capsys.readouterr()
    monkeypatch.setattr(c_compiler, "missing", lambda: "there is no C compiler. Install one")
    with pytest.raises(SystemExit) as ended:
        compiled.main()
    assert ended.value.code == 2
    said = "headrace: cannot compile: there is no C compiler. Install one. Nothing was changed.\n"
    assert capsys.readouterr().err == said
    assert everything(machine) == before


def everything(folder: Path) -> dict[str, bytes]:
    """All files, without the copy that a build begins with."""
    files = (path for path in folder.rglob("*") if path.is_file() and path.suffix != ".pyc")
    copy = compiled.FOLDER / "project"
    return {str(path): path.read_bytes() for path in files if copy not in path.parents}


def test_without_a_compiler_what_is_built_already_is_used(machine: Path, monkeypatch):
    compiled.main()
    monkeypatch.setattr(c_compiler, "missing", lambda: "there is no C compiler")
    compiled.main()
    assert done(machine) == ["built", "installed"]


@pytest.mark.parametrize("second", [compiled.build, compiled.is_built])
def test_two_at_once_build_once(
    machine: Path, monkeypatch: pytest.MonkeyPatch, second: Callable[[], object]
):
    """The second would take the copy away from under the compiler of the first."""
    builds, waits = compiled._wheel_of, threading.Event()
    monkeypatch.setattr(bootstrap, "say", lambda line: "waiting" in line and waits.set())

    def build_wheel(project: Path) -> Path:
        other.start()
        assert waits.wait(timeout=20) or not other.is_alive()
        return builds(project)

    monkeypatch.setattr(compiled, "_wheel_of", build_wheel)
    answers: list[object] = []
    other = threading.Thread(target=lambda: answers.append(second()))
    wheel = compiled.build()
    other.join(timeout=20)
    assert answers == [wheel if second is compiled.build else True]
    assert done(machine) == ["built"]


@pytest.mark.parametrize("target", ["env", "dev-env", "up", "test"])
def test_what_is_made_for_development_names_nothing_compiled(target: str):
    command = ("make", "--dry-run", target)
    said = subprocess.check_output(command, cwd=compiled.ROOT, text=True)
    assert ".venv-compiled" not in said.replace("tools.compiled --check", "")


# ---------------------------------------------------------------- whether it can be built


def test_lint_translates_with_the_compiler_of_the_build():
    project = tomllib.loads((compiled.ROOT / "pyproject.toml").read_text())
    pinned = [each for each in project["dependency-groups"]["dev"] if each.startswith("mypy")]
    required = tomllib.loads(compiled.BUILD_SYSTEM)["build-system"]["requires"]
    assert [each.replace("[mypyc]", "") for each in pinned] == [
        each for each in required if each.startswith("mypy")
    ]


def translated(project: Path, *sources: str) -> tuple[int, str]:
    """What the build says of these modules, `headrace/m0.py` and so on."""
    names = [f"headrace/m{number}.py" for number in range(len(sources))]
    (project / "headrace").mkdir()
    (project / "headrace" / "__init__.py").touch()
    for name, source in zip(names, sources, strict=True):
        (project / name).write_text(source)
    setup = compiled.SETUP.format(paths=names, compiler_options=[])
    (project / "setup.py").write_text(setup)
    (project / "mypy.ini").write_text(compiled.MYPY)
    described = f'[project]\nname = "headrace"\nversion = "1"\n{compiled.BUILD_SYSTEM}'
    (project / "pyproject.toml").write_text(described)
    shutil.copy(compiled.ROOT / "tools" / "written_out.py", project)
    return compiled.translated(project)


NARROWED = """
class Connection:
    def __init__(self) -> None:
        self.answer: int | None = None

    def read(self) -> None:
        self.answer = 3

    def ask(self) -> int:
        self.answer = None
        self.read()
        if self.answer is not None:
            return 1
        return 2
"""
NOTHING = """
def nothing() -> None:
    print()

def ask() -> int:
    answer = nothing()
    return 1 if answer is None else 2
"""
MAYBE = """
def ask(known: dict[str, int]) -> int:
    return known.get("a")
"""
LIST = """
class Answers(list[int]):
    def first(self) -> int:
        return self[0]
"""


@pytest.mark.parametrize(
    ("sources", "says"),
    [
        (
            (NARROWED, NOTHING, MAYBE),
            (
                "m0.py:13: error: Statement is unreachable",
                "m1.py:6: error: ",
                "m2.py:3: error: Incompatible return value type",
            ),
        ),
        ((LIST,), ("m0.py:2: error: Inheriting from most builtin types is unimplemented",)),
    ],
    ids=["types", "what the compiler cannot do"],
)
def test_what_would_break_the_build_is_found_without_a_c_compiler(
    tmp_path: Path,
    path_without_compilers: str,
    monkeypatch: pytest.MonkeyPatch,
    sources: tuple[str, ...],
    says: tuple[str, ...],
):
    monkeypatch.setenv("PATH", path_without_compilers)
    code, said = translated(tmp_path, *sources)
    assert code == 1
    for each in says:
        assert each in said


def test_other_packages_are_unknown_to_it_as_they_are_to_the_build(tmp_path: Path):
    """A call into one is an `Any` there: what pyright says of it does not count."""
    source = "import msgspec\n\ndef ask() -> int:\n    return msgspec.no_such_name\n"
    assert translated(tmp_path, source)[0] == 0


def test_what_has_passed_is_not_translated_again(machine: Path, monkeypatch):
    asked: list[Path] = []
    answers = [(1, "one.py:1: error\n"), (0, ""), (0, "")]

    def answer(project: Path) -> tuple[int, str]:
        asked.append(project)
        return answers[len(asked) - 1]

    monkeypatch.setattr(compiled, "translated", answer)
    with pytest.raises(
        SystemExit, match=r"^one\.py:1: error\nheadrace: `make compiled` would fail"
    ):
        compiled.check()
    compiled.check()
    compiled.check()
    assert len(asked) == 2
    with (machine / "src" / "headrace" / "core" / "dispatcher.py").open("a") as file:
        file.write("# changed\n")
    compiled.check()
    assert len(asked) == 3
