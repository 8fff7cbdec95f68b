"""The README's pictures: pages with boxes, crops before and after, a page annotated by the default models.

    python benchmarks/pictures.py --output docs/images                           the default models' alone
    python benchmarks/pictures.py --run runs/quickstart --output docs/images     a finished quickstart's too

The pages and crops are the first of the held-out ones that fit the sheet; all are synthetic.
"""

from __future__ import annotations

import argparse
import io
import pathlib
import sys

import numpy as np
from PIL import Image, ImageDraw

ROOT = pathlib.Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))
COLOURS = {1: "#c62828", 2: "#1565c0", 3: "#8e24aa", 4: "#2e7d32"}
SHEET = "#e8e8e8"


def main() -> None:
    """Draws the pictures."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--run", type=pathlib.Path, help="a finished quickstart")
    parser.add_argument("--output", type=pathlib.Path, default=pathlib.Path("docs/images"))
    arguments = parser.parse_args()
    arguments.output.mkdir(parents=True, exist_ok=True)
    annotated().save(arguments.output / "annotated.png", optimize=True)
    if arguments.run:
        detected(arguments.run).save(arguments.output / "detector.png", optimize=True)
        cleaned(arguments.run).save(arguments.output / "cleaner.png", optimize=True)


def annotated(seed: int = 77, height: int = 760) -> Image.Image:
    """A page as `signver annotate` draws it with the default models, its signatures cleaned beside it.

    The first upright contract with a signature, a date and marks of a third kind that fills its scan;
    whatever is found is shown.
    """
    from signver import Pipeline
    from signver.pictures import COLORS
    from signver.visualization import draw_marks
    from training.data.synthetic.page import synthesize_page

    pipeline = Pipeline.load()
    for index in range(1000):
        page = synthesize_page(seed, index, evaluation=True)
        labels = {box.label for box in page.boxes}
        if "contract" not in page.name or page.height <= 1.2 * page.width or not {1, 4} < labels:
            continue
        image = Image.open(io.BytesIO(page.image)).convert("RGB")
        if np.mean(np.asarray(image) > 128) > 0.85:
            break
    found = pipeline.annotate(image)
    sheet = Image.new("RGB", (image.width * height // image.height + 320, height), "white")
    marked = draw_marks(image, found.pages[0].marks, COLORS, "#ef6c00")
    marked = marked.resize((sheet.width - 320, height), Image.Resampling.LANCZOS)
    sheet.paste(marked, (0, 0))
    y = 20
    for _, _, crop in pipeline.signatures(image):
        ink = pipeline.ink(crop)
        ink.thumbnail((280, 150))
        sheet.paste(ink, (sheet.width - 300, y))
        y += ink.height + 20
    return sheet


def detected(run: pathlib.Path, count: int = 3) -> Image.Image:
    """Upright held-out pages with two marks at least: true boxes grey, found ones coloured."""
    from signver import Detector
    from training.data import tfrecord

    detector = Detector().load(run / "detector" / "detector.onnx")
    sheet = Image.new("RGB", (count * 430 + 10, 560), SHEET)
    place = 0
    for page in tfrecord.read_pages(f"{run}/data/eval*"):
        if page.height < 1.1 * page.width or len(page.boxes) < 2:
            continue
        image = Image.open(io.BytesIO(page.image)).convert("RGB")
        found = detector.detect(image)
        draw = ImageDraw.Draw(image)
        for box in page.boxes:
            sides = (box.xmin, box.ymin, box.xmax, box.ymax)
            x0, y0, x1, y1 = np.multiply(sides, (image.width, image.height) * 2)
            draw.rectangle([x0 - 3, y0 - 3, x1 + 3, y1 + 3], outline="#9e9e9e", width=2)
        for (ymin, xmin, ymax, xmax), score, label in zip(
            found.boxes, found.scores, found.classes, strict=True
        ):
            if score >= detector.score_threshold:
                x0, y0, x1, y1 = np.multiply((xmin, ymin, xmax, ymax), (image.width, image.height) * 2)
                draw.rectangle([x0, y0, x1, y1], outline=COLOURS[int(label)], width=4)
                words = f"{detector.class_names[int(label)]} {score:.2f}"
                draw.text((x0, y0 - 14), words, fill=COLOURS[int(label)])
        scaled = image.resize((420, image.height * 420 // image.width), Image.Resampling.LANCZOS)
        sheet.paste(scaled.crop((0, 0, 420, 540)), (10 + place * 430, 10))
        place += 1
        if place == count:
            break
    return sheet


def cleaned(run: pathlib.Path, columns: int = 3, rows: int = 3) -> Image.Image:
    """Noisy crops of held-out writers beside what the cleaner makes of them."""
    from signver import Cleaner
    from training.cleaner.input import UNTOUCHED_EVERY, evaluation_pairs, load_bank
    from training.cleaner.noise import SIDE, NoiseLevels

    cleaner = Cleaner().load(run / "cleaner" / "cleaner.onnx")
    pairs = evaluation_pairs(load_bank(f"{run}/signatures/eval*"), NoiseLevels())
    # One writer has several signatures in a row: every seventh pair shows another hand.
    noisy = [image for number, image, _ in pairs if number % 7 == 3 and number % UNTOUCHED_EVERY]
    sheet = Image.new("L", (columns * (2 * SIDE + 24), rows * (SIDE + 10) + 10), 232)
    for place, image in enumerate(noisy[: columns * rows]):
        x = 10 + place % columns * (2 * SIDE + 24)
        y = 10 + place // columns * (SIDE + 10)
        sheet.paste(Image.fromarray(image), (x, y))
        sheet.paste(Image.fromarray(cleaner.clean(Image.fromarray(image))), (x + SIDE + 4, y))
    return sheet


if __name__ == "__main__":
    main()
