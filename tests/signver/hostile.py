"""Asks a pipeline about each file of a folder, in a process that may be killed; one JSON line a file.

    python hostile.py MODELS FOLDER SECONDS MEGABYTES

A file that takes longer than SECONDS by the clock ends the process, as a crash would; what the line says are
seconds of the processor, which others on the machine do not lengthen. MEGABYTES may be had beyond what the
process holds after a first answer.
"""

import faulthandler
import hashlib
import json
import pathlib
import resource
import sys
import time

import numpy as np

from signver import Pipeline, SignVerError
from signver.cleaner import Cleaner
from signver.detector import Detector
from signver.extractor import MetricExtractor
from signver.images import as_rgb


def main():
    models, folder, seconds, megabytes = pathlib.Path(sys.argv[1]), *sys.argv[2:]
    pipeline = Pipeline(
        detector=Detector(1).load(models / "detector.onnx"),
        cleaner=Cleaner(1).load(models / "cleaner.onnx"),
        extractor=MetricExtractor(1).load(models / "extractor.onnx"),
    )
    for reference in sorted(models.glob("reference*.png")):
        pipeline.enroll("ada", reference)
        pipeline.annotate(reference)
    held = int(pathlib.Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    limit = held + int(megabytes) * 2**20
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    for file in sorted(pathlib.Path(folder).iterdir()):
        begun = time.process_time()
        faulthandler.dump_traceback_later(float(seconds), exit=True)
        line = {"file": file.name, "annotate": asked(annotated, pipeline, file)}
        line["verify"] = asked(verified, pipeline, file)
        faulthandler.cancel_dump_traceback_later()
        line["seconds"] = time.process_time() - begun
        # `getrusage` would also know what the parent held when it made this process.
        line["peak"] = int(pathlib.Path("/proc/self/status").read_text().split("VmHWM:")[1].split()[0]) * 1024
        line["held"] = held
        print(json.dumps(line), flush=True)


def asked(question, pipeline, file):
    try:
        return question(pipeline, file)
    except SignVerError as error:
        return {"error": str(error)}


def annotated(pipeline, file):
    found = pipeline.annotate(file)
    values = found.as_dict()
    for page in values["pages"]:
        assert page["width"] > 0
        assert page["height"] > 0
        for mark in page["marks"]:
            assert np.isfinite([mark["score"], *mark["box"]]).all()
    if len(found.pages) == 1:
        # The file's answer is that of the pixels in it.
        again = pipeline.annotate(np.asarray(as_rgb(file))).as_dict()
        assert again["pages"] == values["pages"]
    return {"answer": digest(values["pages"])}


def verified(pipeline, file):
    found = pipeline.verify("ada", file).as_dict()
    assert -1.001 < found["similarity"] < 1.001
    assert 0 <= found["probability"] <= 1
    assert pipeline.verify("ada", np.asarray(as_rgb(file))).as_dict() == found
    return {"answer": digest(found)}


def digest(values):
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()


if __name__ == "__main__":
    main()
