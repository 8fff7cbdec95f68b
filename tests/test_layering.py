"""DESIGN.md's rules on who may import whom, and CONTRIBUTING.md's on where code goes, held by reading it."""

from __future__ import annotations

import ast
import functools
import pathlib
import re
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[1]
PACKAGES = ("training", "export", "signver")
TOP_LEVEL = {
    *(
        ".ci",
        ".dockerignore",
        ".git",
        ".gitignore",
        ".pre-commit-config.yaml",
        "CONTRIBUTING.md",
        "Dockerfile.habana",
    ),
    *("LICENSE", "README.md", "benchmarks", "configs", "docs", "export", "models", "pyproject.toml"),
    *("requirements", "scripts", "setup.py", "signver", "tests", "training"),
}
# module -> the one file that may import it.
SINGLE_IMPORTERS = {
    "cryptography": "signver/signing.py",
    "faiss": "signver/index.py",
    "habana_frameworks": "training/device.py",
    "horovod": "training/distribution.py",
    "kaggle": "training/data/fetch.py",
    "pypdfium2": "signver/pdf.py",
    "torch": "export/siamese.py",
}
SDK_IMPORTS = {"numpy", "onnxruntime", "PIL", "signver"}
# Of an extra, imported inside functions: file -> package.
SDK_EXTRAS = {
    "signver/index.py": {"faiss"},
    "signver/pdf.py": {"pypdfium2"},
    "signver/signing.py": {"cryptography"},
}
LONGEST_FUNCTION = 60
VAGUE_NAMES = {"utils.py", "util.py", "helpers.py", "helper.py", "common.py", "misc.py"}
# Paths that exist on one machine only.
MACHINE_PATH = re.compile(r"(?<![\w./$}~-])/(?:home|root|tmp|work|mnt|Users|scratch)/\w")


def python_files(*folders: str) -> list[pathlib.Path]:
    found = [path for folder in folders for path in sorted((ROOT / folder).rglob("*.py"))]
    assert found, f"no Python file under {folders}"
    return found


def versioned_files() -> list[str]:
    listing = ["git", "ls-files", "--cached", "--others", "--exclude-standard"]
    try:
        listed = subprocess.run(listing, cwd=ROOT, capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("not a git checkout")
    return [name for name in listed.stdout.splitlines() if (ROOT / name).exists()]


@functools.cache
def tree_of(path: pathlib.Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"), str(path))


def imports_of(tree: ast.Module) -> set[str]:
    """Top-level names of everything imported anywhere in a module, inside functions too."""
    names: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute"
            names.add((node.module or "").partition(".")[0])
        elif isinstance(node, ast.Call) and node.args and isinstance(node.args[0], ast.Constant):
            called = ast.unparse(node.func)
            if called in ("importlib.import_module", "import_module", "__import__"):
                names.add(str(node.args[0].value).partition(".")[0])
    return names


def relative(path: pathlib.Path) -> str:
    return path.relative_to(ROOT).as_posix()


def test_the_import_reader_sees_every_form():
    source = "import a.b\nfrom c.d import e\ndef f():\n  import g\n  importlib.import_module('h.i')\n"
    assert imports_of(ast.parse(source)) == {"a", "c", "g", "h"}


def test_the_sdk_imports_three_packages_and_itself():
    allowed = SDK_IMPORTS | sys.stdlib_module_names
    strays = {
        relative(path): imports_of(tree_of(path)) - allowed - SDK_EXTRAS.get(relative(path), set())
        for path in python_files("signver")
    }
    assert {path: names for path, names in strays.items() if names} == {}


def test_training_imports_neither_export_nor_the_sdk():
    guilty = [
        relative(path)
        for path in python_files("training")
        if imports_of(tree_of(path)) & {"export", "signver"}
    ]
    assert guilty == []


@pytest.mark.parametrize("module", sorted(SINGLE_IMPORTERS))
def test_optional_package_has_one_importer(module):
    importers = {relative(path) for path in python_files(*PACKAGES) if module in imports_of(tree_of(path))}
    assert importers <= {SINGLE_IMPORTERS[module]}


def test_packages_import_no_tests_or_benchmarks():
    guilty = [
        relative(path)
        for path in python_files(*PACKAGES)
        if imports_of(tree_of(path)) & {"tests", "benchmarks"}
    ]
    assert guilty == []


# What is imported, and what must not come with it: light commands answer at once, optional packages
# may be missing.
LIGHT = [
    ("signver", {"tensorflow", "training", "export", "matplotlib", "cv2"}),
    ("training.train", {"tensorflow", "official", "signver", "export"}),
    ("training.data.__main__", {"tensorflow", "official"}),
    ("training.files", {"tensorflow", "numpy"}),
    ("export.__main__", {"tensorflow", "official", "onnx", "tf2onnx", "torch"}),
]


@pytest.mark.parametrize(("module", "heavy"), LIGHT, ids=[module for module, _ in LIGHT])
def test_import_stays_light(module, heavy):
    code = f"import sys, {module}; print(*sorted(set({sorted(heavy)}) & sys.modules.keys()))"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == []


def test_no_file_has_a_name_that_says_nothing():
    assert [name for name in versioned_files() if pathlib.PurePath(name).name in VAGUE_NAMES] == []


def test_top_level_holds_what_the_design_lists():
    unexpected = {pathlib.PurePath(name).parts[0] for name in versioned_files()} - TOP_LEVEL
    assert unexpected == set(), "say in CONTRIBUTING.md what it is for, then allow it here"


def test_functions_fit_a_screen():
    long = []
    for path in python_files(*PACKAGES, "tests", "benchmarks"):
        for node in ast.walk(tree_of(path)):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                lines = (node.end_lineno or node.lineno) - node.lineno + 1
                if lines > LONGEST_FUNCTION:
                    long.append(f"{relative(path)}:{node.lineno} {node.name}: {lines} lines")
    assert long == []


def test_nothing_names_a_path_of_one_machine():
    found = []
    for name in versioned_files():
        if pathlib.PurePath(name).suffix in (".png", ".jpg", ".ttf", ".tfrecord", ".onnx"):
            continue
        text = (ROOT / name).read_text(encoding="utf-8", errors="replace")
        for number, line in enumerate(text.splitlines(), start=1):
            if MACHINE_PATH.search(line) and name != "tests/test_layering.py":
                found.append(f"{name}:{number}: {line.strip()[:100]}")
    assert found == []


def test_every_module_says_what_it_is():
    silent = [
        relative(path)
        for path in python_files(*PACKAGES)
        if path.read_text(encoding="utf-8").strip() and not ast.get_docstring(tree_of(path))
    ]
    assert silent == []


@pytest.mark.parametrize("version", ["3.10", "3.11"])
def test_pins_are_exact_and_name_no_registry(version):
    lines = (ROOT / f"requirements/cpu-{version}.txt").read_text(encoding="utf-8").splitlines()
    pins = [line for line in lines if line and not line.startswith("#")]
    assert len(pins) > 50
    assert [pin for pin in pins if not re.fullmatch(r"[a-z0-9-]+==[\w.]+", pin)] == []


def test_habana_constraints_leave_the_images_own_packages_alone():
    lines = (ROOT / "requirements/habana.txt").read_text(encoding="utf-8").splitlines()
    names = {line.partition("==")[0] for line in lines if line and not line.startswith("#")}
    pins = set((ROOT / "requirements/cpu-3.10.txt").read_text(encoding="utf-8").splitlines())
    assert names.isdisjoint(
        {"tensorflow", "tensorflow-cpu", "horovod", "keras", "tensorboard", "tensorflow-text"}
    )
    assert [line for line in lines if line and not line.startswith("#") and line not in pins] == []
