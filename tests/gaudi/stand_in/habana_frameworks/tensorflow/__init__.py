"""`load_habana_module`: to be called before any TensorFlow operation; afterwards there is one HPU.

Writes each call as a line of JSON to $STAND_IN_LOG. The HPU that it shows is the CPU under another name:
TensorFlow itself knows no such device without Habana's library.
"""

import json
import os
import sys


def note(event, **details):
    """Appends a line to the record."""
    with open(os.environ["STAND_IN_LOG"], "a", encoding="utf-8") as stream:
        stream.write(json.dumps({"event": event, "pid": os.getpid(), **details}) + "\n")


def load_habana_module():
    """As Habana's: an error once TensorFlow has created its context, or where no card is."""
    from tensorflow.python.eager import context

    ready = context.context()._initialized
    note(
        "load",
        after_operations=ready,
        horovod="horovod.tensorflow" in sys.modules,
        local_rank=os.environ.get("OMPI_COMM_WORLD_LOCAL_RANK"),
        environment={
            key: os.environ[key] for key in os.environ if key.startswith(("TF_", "HABANA_", "HCCL"))
        },
    )
    if ready:
        raise RuntimeError("load_habana_module() must be called before TensorFlow operations")
    if os.environ.get("STAND_IN_CARDS") == "broken":
        raise RuntimeError("libsynapse.so: version mismatch")
    if os.environ.get("STAND_IN_CARDS") != "0":
        _show_card()


def _show_card():
    import tensorflow as tf

    listed = tf.config.list_physical_devices

    def list_physical_devices(device_type=None):
        if device_type == "HPU":
            note("list", device_type=device_type)
            return [tf.config.PhysicalDevice("/physical_device:HPU:0", "HPU")]
        return listed(device_type)

    tf.config.list_physical_devices = list_physical_devices
