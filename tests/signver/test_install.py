"""The wheel in an environment that holds numpy, ONNX Runtime and Pillow and nothing else."""

import importlib.util
import json
import os
import pathlib
import shutil
import subprocess
import sys
import sysconfig

import pytest
from conftest import page_with, signature

ROOT = pathlib.Path(__file__).parents[2]
# Packages and the folders of shared libraries that come with them.
LINKED = ("numpy", "numpy.libs", "onnxruntime", "PIL", "pillow.libs")
SOURCES = ("pyproject.toml", "setup.py", "README.md", "LICENSE", "signver", "training", "export", "models")


def call(*command, **options):
    done = subprocess.run(
        [str(part) for part in command], capture_output=True, text=True, timeout=300, **options
    )
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    return done.stdout


@pytest.fixture(scope="module")
def bare(tmp_path_factory):
    """A virtual environment without pip: the project's wheel, and links to three packages."""
    folder = tmp_path_factory.mktemp("bare")
    source = folder / "source"
    source.mkdir()
    for name in SOURCES:
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, source / name, ignore=shutil.ignore_patterns("__pycache__"))
        elif (ROOT / name).exists():
            shutil.copy(ROOT / name, source)
    pip = (sys.executable, "-m", "pip", "--disable-pip-version-check", "--quiet")
    call(*pip, "wheel", "--no-deps", "--no-build-isolation", "--no-index", f"--wheel-dir={folder}", source)
    call(sys.executable, "-m", "venv", "--without-pip", folder / "venv")
    (wheel,) = folder.glob("*.whl")
    python = folder / "venv" / "bin" / "python"
    packages = pathlib.Path(
        call(python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))").strip()
    )
    # What pip does with a wheel, without a network; the entry point is called as a function below.
    call(*pip, "install", "--no-deps", "--no-index", f"--target={packages}", wheel)
    for name in LINKED:
        found = pathlib.Path(sysconfig.get_path("platlib")) / name
        if found.exists():
            (packages / name).symlink_to(found)
        elif not name.endswith(".libs"):
            spec = importlib.util.find_spec(name)
            assert spec is not None
            (packages / name).symlink_to(pathlib.Path(spec.origin).parent)
    return python


def ask(python, code, *arguments, folder=None):
    """Runs code that ends in a JSON line; nothing of this process's environment comes along."""
    done = call(python, "-I", "-c", code, *arguments, env={"PATH": os.defpath}, cwd=folder or "/")
    return json.loads(done.splitlines()[-1])


IMPORTED = """
import json, sys, time
before, begun = set(sys.modules), time.perf_counter()
{code}
seconds = time.perf_counter() - begun
names = {{name.partition(".")[0] for name in set(sys.modules) - before}}
memory = int(open("/proc/self/status").read().split("VmHWM:")[1].split()[0]) / 1024
print(json.dumps({{
    "foreign": sorted(
        name for name in names - set(sys.stdlib_module_names) - {{"signver"}}
        if "cython" not in name  # which numpy's compiled modules register
    ),
    "modules": len(set(sys.modules) - before), "seconds": seconds, "megabytes": memory,
}}))
"""


def test_import_alone_loads_nothing(bare):
    found = ask(bare, IMPORTED.format(code="import signver"))
    assert found["foreign"] == []
    assert found["modules"] < 15


def test_each_name_is_there_and_needs_three_packages(bare):
    code = "import signver\nfor name in signver.__all__: assert getattr(signver, name) is not None"
    found = ask(bare, IMPORTED.format(code=code))
    print(f"all names of the SDK: {found['seconds']:.2f} s, {found['megabytes']:.0f} MB")
    # ONNX Runtime itself is imported with the first model.
    assert set(found["foreign"]) <= {"numpy", "PIL"}


def test_a_page_is_annotated_with_three_packages(bare, models, pictures, tmp_path):
    page_with(signature(1, 3)).save(tmp_path / "page.png")
    code = f"""
from signver import Pipeline, Detector, Cleaner, MetricExtractor
pipeline = Pipeline(detector=Detector(1).load({str(models.detector)!r}),
    cleaner=Cleaner(1).load({str(models.cleaner)!r}),
    extractor=MetricExtractor(1).load({str(models.extractor)!r}))
pipeline.enroll("ada", {[str(pictures / f"1-{number}.png") for number in range(3)]!r})
found = pipeline.annotate({str(tmp_path / "page.png")!r}, identify=True)
assert found.pages[0].marks[0].writer.identity == "ada"
"""
    found = ask(bare, IMPORTED.format(code=code))
    print(f"enrolled and annotated: {found['seconds']:.2f} s, {found['megabytes']:.0f} MB")
    # These come along where they are installed; this environment shows that nothing needs them.
    assert set(found["foreign"]) <= {"numpy", "PIL", "onnxruntime"}


def test_the_command_line_is_installed_and_works(bare, models, tmp_path):
    page_with(signature(1, 3)).save(tmp_path / "page.png")
    scripts = bare.parent.parent.rglob("signver")
    assert any(path.is_file() for path in scripts), "the wheel brings no command 'signver'"
    code = f"""
import json, sys
from signver.command import main
page, detector = {str(tmp_path / "page.png")!r}, {f"--detector={models.detector}"!r}
code = main(["annotate", page, detector, "--require=signed"])
print(json.dumps([code, sorted({{"tensorflow", "training", "export"}} & set(sys.modules))]))
"""
    assert ask(bare, code, folder=tmp_path) == [0, []]


def test_pdf_and_faiss_are_asked_for_by_name_where_they_are_missing(bare, tmp_path):
    (tmp_path / "letter.pdf").write_bytes(b"%PDF-1.4\n")
    code = f"""
import json
from signver import SignatureIndex, SignVerError
from signver.documents import document_pages
said = []
index = SignatureIndex(backend="faiss")
index.add("ada", [1.0, 0.0])
letter = {str(tmp_path / "letter.pdf")!r}
for question in (lambda: list(document_pages(letter)), lambda: index.search([1.0, 0.0])):
    try:
        question()
    except SignVerError as error:
        said.append(str(error))
print(json.dumps(said))
"""
    pdf, faiss = ask(bare, code)
    assert "pip install 'signver-harness[pdf]'" in pdf
    assert "pip install 'signver-harness[faiss]'" in faiss
