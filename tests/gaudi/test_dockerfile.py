"""Dockerfile.habana, read as a linter would: nothing of Habana's is replaced, any user may run it."""

import json
import pathlib
import re

ROOT = pathlib.Path(__file__).parents[2]


def instructions():
    """(instruction, arguments) pairs, continuation lines joined, comments left out."""
    text = (ROOT / "Dockerfile.habana").read_text(encoding="utf-8")
    lines = [line for line in text.splitlines() if not line.lstrip().startswith("#")]
    joined = re.sub(r"\\\n\s*", " ", "\n".join(lines))
    return [tuple(line.split(None, 1)) for line in joined.splitlines() if line.strip()]


def of(kind):
    return [arguments for name, arguments in instructions() if name == kind]


def test_the_base_is_the_documented_image_of_the_last_synapse_with_tensorflow():
    (base,) = of("ARG")
    assert "1.14.0" in base
    assert "tf-cpu-2.15.0" in base
    assert of("FROM") == ["${BASE_IMAGE}"]


def test_nothing_of_habanas_is_installed_or_replaced():
    installs = [run for run in of("RUN") if "pip install" in run]
    assert len(installs) == 2
    for run in installs:
        assert "--no-deps" in run
        assert "--no-cache-dir" in run
        assert not re.search(r"install[^&]*\s(tensorflow|horovod|habana)", run)


def test_every_copy_is_in_the_context_and_in_the_repository():
    allowed = {line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")}
    for copy in of("COPY"):
        for source in copy.split()[:-1]:
            assert source in allowed
            assert (ROOT / source).exists()
    assert (ROOT / ".dockerignore").read_text().splitlines()[1] == "*"


def test_requirements_come_before_the_code():
    copies = of("COPY")
    assert copies[0].startswith("requirements/habana.txt")
    names = [name for name, _ in instructions()]
    assert names.index("RUN") < len(names) - names[::-1].index("COPY") - 1


def test_any_user_may_run_it_and_its_health_is_the_cards():
    assert any("chmod" in run for run in of("RUN"))
    assert any("HOME=/tmp" in env for env in of("ENV"))
    (check,) = of("HEALTHCHECK")
    assert "hl-smi" in check
    assert of("CMD")[-1].startswith("[")  # the exec form: signals reach the script


def test_preflight_is_what_runs_first():
    assert any("PREFLIGHT=yes" in env for env in of("ENV"))
    command = json.loads(of("CMD")[-1])
    assert command[:3] == ["python", "-m", "training.preflight"]
    config = next(word for word in command if word.startswith("--config_file="))
    assert (ROOT / config.partition("=")[2]).exists()


def test_no_secrets_and_no_latest_packages():
    text = (ROOT / "Dockerfile.habana").read_text(encoding="utf-8")
    assert not re.search(r"(?i)password|token|secret", text)
    assert "apt-get upgrade" not in text
