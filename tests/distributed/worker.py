"""One rank of a test run: trains as `training.train` does, then writes what it holds, for comparison.

    worker.py EXPERIMENT MODEL_DIR OUTPUT OVERRIDE [--each-for-itself] [--never-comes]

OUTPUT-RANK.npz holds every variable of model and optimizer, OUTPUT-RANK.json the figures. With
--each-for-itself gradients are not averaged, as with Horovod's optimizer wrapper around a legacy Keras
optimizer: the trap that the tests must see. With --never-comes rank 1 stops coming to the others after its
second look at the loss, though its process lives on. SignVer's autoencoder has an eighth of its filters here:
equality needs no more, and with all of them a step costs seconds.
"""

import functools
import json
import pathlib
import sys
import time

import numpy as np

from training import config, distribution, runner
from training.cleaner import model
from training.errors import run_command

ROOT = pathlib.Path(__file__).parents[2]


def main():
    """Runs this rank."""
    name, model_dir, output, override, *flags = sys.argv[1:]
    if "--each-for-itself" in flags:
        distribution.average_gradients = list
    if "--never-comes" in flags:
        look = runner._Run._after_loop

        def stay_away(self, logs):
            look(self, logs)
            if distribution.rank() == 1 and self._step() >= 2:
                time.sleep(1000)

        runner._Run._after_loop = stay_away
    model.autoencoder = functools.partial(model.autoencoder, filters=(8, 16, 32))
    built = []
    build = runner._build_runner

    def remember(*arguments, **options):
        built.append(build(*arguments, **options))
        return built[-1]

    runner._build_runner = remember
    folder = name.partition("_")[0].replace("retinanet", "detector")
    experiment = config.load(name, [str(ROOT / f"configs/{folder}/smoke.yaml")], override)
    figures = runner.run(name, experiment, "train_and_eval", model_dir, "cpu")
    trainer = built[0].trainer
    variables = [*trainer.model.variables, *trainer.optimizer.variables()]
    values = {f"{number:04d} {variable.name}": variable.numpy() for number, variable in enumerate(variables)}
    place = f"{output}-{distribution.rank()}"
    np.savez(f"{place}.npz", **{key.replace("/", "|"): value for key, value in values.items()})
    pathlib.Path(f"{place}.json").write_text(json.dumps(figures))


if __name__ == "__main__":
    run_command(main)
