"""Weights without an optimizer, which a fine-tuning starts from."""

import shutil

import numpy as np
import pytest
import tensorflow as tf

from export import saved_model
from training import config
from training.errors import UserError
from training.runner import load_model


@pytest.fixture(params=["detector", "cleaner", "extractor"])
def loaded(request):
    return load_model(request.getfixturevalue(f"{request.param}_run"))


def started_from(folder, loaded):
    """A fresh model as a run with `task.init_checkpoint` begins with."""
    loaded.params.task.init_checkpoint = str(folder)
    if hasattr(loaded.params.task, "init_checkpoint_modules"):
        loaded.params.task.init_checkpoint_modules = "all"
    task = config.build_task(loaded.experiment, loaded.params)
    model = task.build_model()
    task.initialize(model)
    return model


def test_a_run_starts_from_them_and_they_may_be_moved(loaded, tmp_path):
    folder = saved_model.save_weights(loaded, tmp_path / "weights")
    moved = folder.rename(tmp_path / "elsewhere")
    found, expected = started_from(moved, loaded), loaded.model
    assert len(found.variables) == len(expected.variables) > 0
    for one, two in zip(found.variables, expected.variables, strict=True):
        np.testing.assert_array_equal(one.numpy(), two.numpy(), err_msg=two.name)
    sizes = sum(variable.numpy().nbytes for variable in expected.variables)
    assert sum(file.stat().st_size for file in moved.iterdir()) < 1.2 * sizes + 100_000
    names = [name for name, _ in tf.train.list_variables(str(moved / "weights"))]
    assert not [name for name in names if "optimizer" in name]


def test_another_folder_is_not_replaced(extractor_run, tmp_path):
    run = tmp_path / "run"
    shutil.copytree(extractor_run, run)
    before = sorted(path.name for path in run.iterdir())
    with pytest.raises(UserError, match="holds other things than weights"):
        saved_model.save_weights(load_model(run), run)
    assert sorted(path.name for path in run.iterdir()) == before
    for _ in range(2):  # weights are replaced
        saved_model.save_weights(load_model(run), tmp_path / "weights")
    (tmp_path / "letter.txt").write_text("mine")
    with pytest.raises(UserError, match="holds other things than weights"):
        saved_model.save_weights(load_model(extractor_run), tmp_path)
    assert (tmp_path / "letter.txt").read_text() == "mine"
