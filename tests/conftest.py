"""Fixtures for every test."""

import collections
import json
import os
import pathlib
import shutil
from typing import Any

import commands
import pytest

ROOT = pathlib.Path(__file__).parents[1]
# Files whose tests share trained models, which take minutes to make.
_SHARING = ("tests/export/", "tests/signver/test_bundle")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """What takes longest comes first, so that no process tests alone at the end."""
    slow = collections.Counter(
        item.location[0] for item in items if item.get_closest_marker("slow") is not None
    )
    items.sort(key=lambda item: (not item.nodeid.startswith(_SHARING), -slow[item.location[0]]))


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """Where several processes test, a file goes to one of them, and so do files that share trained models.

    pytest-xdist has groups for that, but with pytest 9.2 it does not see them.
    """
    from xdist.scheduler import LoadFileScheduling

    class BySharedModels(LoadFileScheduling):
        def _split_scope(self, nodeid: str) -> str:
            return "sharing" if nodeid.startswith(_SHARING) else super()._split_scope(nodeid)

    return BySharedModels(config, log)


@pytest.fixture(scope="session")
def shared_data() -> pathlib.Path:
    """Real pages and signatures, which are not part of the project; tests skip where they are absent."""
    folder = pathlib.Path(os.environ.get("SIGNVER_SHARED_DATA", ROOT.parent / "shared" / "data"))
    if not folder.is_dir():
        pytest.skip(f"real data are not in {folder} (set SIGNVER_SHARED_DATA)")
    return folder


def train(experiment: str, config: str, folder: pathlib.Path, override: dict, mode: str) -> pathlib.Path:
    """A training with the data of `folder`; returns its model_dir."""
    override = json.loads(json.dumps(override))
    task = override.setdefault("task", {})
    for split, name in (("train_data", "train"), ("validation_data", "eval")):
        task.setdefault(split, {})["input_path"] = f"{folder}/data/{name}*"
    options = [f"--config_file=configs/{config}.yaml", f"--params_override={json.dumps(override)}"]
    where = [f"--experiment={experiment}", f"--mode={mode}", f"--model_dir={folder / 'run'}"]
    commands.run("training.train", *where, *options)
    return folder / "run"


@pytest.fixture(scope="session")
def detector_run(tmp_path_factory):
    """model_dir of the detector that ships, trained on for a few steps at 256² so that it is another one."""
    folder = tmp_path_factory.mktemp("detector")
    make = ["training.data", "synthesize", "pages", f"--output={folder / 'data'}", "--count=8"]
    commands.run(*make, "--eval_count=4", "--long_side=400")
    override = {
        "task": {
            "model": {"input_size": [256, 256, 3]},
            "train_data": {"global_batch_size": 4},
        },
        "schedule": {"base_batch": 4, "decay": "constant"},
        "trainer": {"train_steps": 6},
    }
    return train("retinanet_signverod", "detector/finetune", folder, override, "train")


@pytest.fixture(scope="session")
def cleaner_run(tmp_path_factory):
    """model_dir of a small cleaner after 140 steps on twelve synthetic signatures."""
    from training.data import signatures, tfrecord

    folder = tmp_path_factory.mktemp("cleaner")
    pages = [signatures.synthesize(0, number, 0, signatures.GENUINE) for number in range(14)]
    splits = {"train": pages[:12], "eval": pages[12:]}
    tfrecord.write_dataset(folder / "data", splits, signatures.CLASSES, shards=1, source="test")
    override = {"trainer": {"train_steps": 140}, "schedule": {"learning_rate": 0.005}}
    return train("cleaner_unet", "cleaner/smoke", folder, override, "train_and_eval")


@pytest.fixture(scope="session")
def extractor_run(tmp_path_factory):
    """model_dir of a small extractor after 60 steps on twelve synthetic writers."""
    from training.data import signatures, tfrecord

    folder = tmp_path_factory.mktemp("extractor")
    labels = [(signatures.GENUINE, 4), (signatures.FORGED, 2)]
    splits = {
        split: [
            signatures.synthesize(0, writer, number, label)
            for writer in writers
            for label, count in labels
            for number in range(count)
        ]
        for split, writers in (("train", range(12)), ("eval", range(12, 18)))
    }
    tfrecord.write_dataset(folder / "data", splits, signatures.CLASSES, shards=1, source="test")
    override = {"trainer": {"train_steps": 60}, "schedule": {"learning_rate": 0.003}}
    return train("extractor_metric", "extractor/smoke", folder, override, "train_and_eval")


@pytest.fixture(scope="session")
def whole_bundle(detector_run, cleaner_run, extractor_run, tmp_path_factory):
    """A bundle of three small models; not to be changed, see `bundle`."""
    folder = tmp_path_factory.mktemp("bundle") / "bundle"
    runs = [f"--detector={detector_run}", f"--cleaner={cleaner_run}", f"--extractor={extractor_run}"]
    # Scores are low at 256², which the detector did not learn at; so is the threshold.
    options = ["--score_threshold=0.1", "--synthetic=6", "--minimum_detections=2", "--seed=5"]
    commands.run("export", "bundle", *runs, f"--output={folder}", *options)
    return folder


@pytest.fixture
def bundle(whole_bundle, tmp_path):
    """A copy of the bundle, to damage."""
    return pathlib.Path(shutil.copytree(whole_bundle, tmp_path / "bundle"))
