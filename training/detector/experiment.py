"""Config of the detector: tf-models' RetinaNet, with class names and augmentation for scanned pages."""

from __future__ import annotations

import dataclasses
import pathlib

from official.core import config_definitions
from official.modeling import hyperparams
from official.vision.configs import backbones, common, decoders, retinanet

from training.errors import UserError
from training.experiment import Experiment, trainer_defaults


@dataclasses.dataclass
class Augmentation(hyperparams.Config):
    """What changes from one look at a page to the next; every draw is a function of (seed, position).

    Attributes:
      scale_min: smallest zoom, as a factor of the fitted page.
      scale_max: largest zoom; more than 1 crops.
      aspect: largest change of width against height, as a factor: 1.2 is 20 % either way.
      stroke: probability of thinner or thicker ink (grey-level erosion or dilation, 3×3).
      contrast: largest change of contrast and brightness, as a fraction of the range.
      colour: probability of a tint over ink and paper.
    """

    scale_min: float = 0.8
    scale_max: float = 1.25
    aspect: float = 1.15
    stroke: float = 0.3
    contrast: float = 0.3
    colour: float = 0.1


@dataclasses.dataclass
class DetectorTask(retinanet.RetinaNetTask):
    """RetinaNet's task config.

    Attributes:
      class_names: names of labels 1, 2, …; label 0 is background.
      augmentation: see `Augmentation`; the stock parser's own, which no seed decides, stays off.
    """

    class_names: list[str] = dataclasses.field(
        default_factory=lambda: ["signature", "initials", "redaction", "date"]
    )
    augmentation: Augmentation = dataclasses.field(default_factory=Augmentation)


def experiment() -> Experiment:
    """`retinanet_signverod`: ResNet-50 FPN at 640², as Habana's reference RetinaNet, on SignVerOD.

    Anchors: three shapes of 1:1, 3:1 and 6:1 (width:height), from 24 pixels on, on levels 3 to 7.
    On the boxes of SignVerOD and of 319 Tobacco800 pages the stock shapes 1:2, 1:1, 2:1 leave every
    second signature without an anchor of IoU 0.5 (recall 0.48 and 0.53); these reach 1.00 for
    signatures, 0.99 for initials, 1.00 for dates, 0.84 for redactions (`benchmarks/anchors.py`).
    """
    model = retinanet.RetinaNet(
        num_classes=5,
        input_size=[640, 640, 3],
        min_level=3,
        max_level=7,
        anchor=retinanet.Anchor(num_scales=3, aspect_ratios=[1.0, 3.0, 6.0], anchor_size=3.0),
        backbone=backbones.Backbone(type="resnet", resnet=backbones.ResNet(model_id=50)),
        # Without Keras layers the pyramid upsamples through six dimensions; a Gaudi kernel takes five.
        decoder=decoders.Decoder(type="fpn", fpn=decoders.FPN(use_keras_layer=True)),
        detection_generator=retinanet.DetectionGenerator(
            nms_version="batched", pre_nms_top_k=1000, pre_nms_score_threshold=0.02
        ),
        # Cross-replica batch norm needs a tf.distribute strategy; ranks are separate processes here.
        norm_activation=common.NormActivation(use_sync_bn=False),
    )
    train_data = retinanet.DataConfig(
        input_path="data/signverod/train*", is_training=True, global_batch_size=8, dtype="float32"
    )
    validation_data = retinanet.DataConfig(
        input_path="data/signverod/eval*",
        is_training=False,
        global_batch_size=8,
        dtype="float32",
        drop_remainder=False,  # every page counts towards AP
    )
    trainer = trainer_defaults()
    trainer.best_checkpoint_eval_metric = "AP"
    return Experiment(
        runtime=config_definitions.RuntimeConfig(
            distribution_strategy="one_device", mixed_precision_dtype="auto"
        ),
        task=DetectorTask(
            model=model,
            train_data=train_data,
            validation_data=validation_data,
            losses=retinanet.Losses(l2_weight_decay=1e-4),
            per_category_metrics=True,
        ),
        trainer=trainer,
    )


def build_task(config: DetectorTask) -> object:
    """Checks what only the whole config can tell, then builds the task.

    Raises:
      UserError: sizes, levels or class names that make no model.
    """
    from training.detector.task import Detector

    model = config.model
    size, stride = model.input_size, 2**model.max_level
    if len(size) != 3 or size[2] != 3:
        raise UserError(f"task.model.input_size must be [height, width, 3], found {list(size)}.")
    if any(side < stride or side % stride for side in size[:2]):
        raise UserError(
            f"task.model.input_size {list(size)}: height and width must be multiples of {stride} "
            f"(2 to the power of task.model.max_level {model.max_level})."
        )
    if model.num_classes != len(config.class_names) + 1:
        raise UserError(
            f"task.model.num_classes is {model.num_classes}, but task.class_names names "
            f"{len(config.class_names)} classes; it must be their number plus 1 for background."
        )
    return Detector(config)


def sample_data(folder: pathlib.Path, count: int = 24) -> str:
    """Writes synthetic pages as long as SignVerOD's after `--max_side 1400`; returns their input_path."""
    from training.data.synthetic.page import synthesize_page
    from training.data.synthetic.sheet import CLASSES
    from training.data.tfrecord import write_dataset

    pages = [synthesize_page(0, number, long_side=1400) for number in range(count)]
    write_dataset(folder / "pages", {"train": pages}, CLASSES, shards=1, source="synthetic pages", seed=0)
    return str(folder / "pages" / "train*")
