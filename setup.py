"""What pyproject.toml cannot say: the models of models/default ship inside the SDK, where they are there."""

import pathlib

from setuptools import find_packages, setup

packages = find_packages(include=["training*", "export*", "signver*"])
places = {}
if pathlib.Path("models/default/manifest.json").is_file():
    packages.append("signver.default_models")
    places["signver.default_models"] = "models/default"

setup(packages=packages, package_dir=places)
