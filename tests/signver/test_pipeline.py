"""The pipeline on real ONNX files: what is on a page, whose it is, the same for every thread."""

import io
import json
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from conftest import Models, page_with, signature, write_cleaner, write_detector, write_extractor
from PIL import Image, ImageDraw

from signver import Matcher, Pipeline, SignVerError
from signver.cleaner import Cleaner
from signver.detector import Detector
from signver.extractor import MetricExtractor
from signver.preprocessing import normalise_signature


@pytest.fixture
def enrolled(pipeline, pictures):
    for writer in range(4):
        pipeline.enroll(f"writer {writer}", [pictures / f"{writer}-{number}.png" for number in range(3)])
    return pipeline


def lined(picture):
    """The signature on grey lines, which the cleaner takes off."""
    page = picture.copy()
    draw = ImageDraw.Draw(page)
    for row in range(5, page.height, 20):
        draw.line([(0, row), (page.width, row)], fill=(185, 185, 185), width=4)
    dark = np.asarray(picture).min(axis=2, keepdims=True) < 100
    return Image.fromarray(np.where(dark, np.asarray(picture), np.asarray(page)))


def test_a_page_is_asked_four_questions(pipeline):
    found = pipeline.annotate(page_with(signature(0)))
    assert (found.signed, found.initialled, found.dated, found.redacted) == (True, False, False, False)
    (page,) = found.pages
    assert (page.number, page.width, page.height) == (1, 1000, 1300)
    (mark,) = page.marks
    assert (mark.kind, mark.score) == ("signature", pytest.approx(0.9))
    ymin, xmin, ymax, xmax = mark.box
    assert 0.69 < ymin < ymax < 0.86
    assert 0.49 < xmin < xmax < 0.91
    blank = pipeline.annotate(Image.new("RGB", (300, 400), "white"))
    assert blank.signed is False
    assert blank.pages[0].marks == ()
    assert json.loads(json.dumps(found.as_dict()))["pages"][0]["marks"][0]["class"] == "signature"


def test_what_a_detector_does_not_know_is_not_answered_with_no(models, tmp_path):
    import onnx

    model = onnx.load(str(models.detector))
    for entry in model.metadata_props:
        if entry.key == "signver.classes":
            entry.value = '{"1": "signature"}'
    onnx.save(model, str(tmp_path / "one_class.onnx"))
    pipeline = Pipeline(detector=Detector(1).load(tmp_path / "one_class.onnx"))
    found = pipeline.annotate(page_with(signature(0)))
    assert (found.signed, found.initialled, found.dated) == (True, None, None)


def test_the_score_threshold_is_the_callers(models):
    strict = Pipeline(detector=Detector(1).load(models.detector), score_threshold=0.95)
    assert strict.annotate(page_with(signature(0))).signed is False


def test_every_page_of_a_document_is_read(pipeline, tmp_path):
    pages = [page_with(signature(0)), Image.new("RGB", (900, 1200), "white"), page_with(signature(1))]
    pages[0].save(tmp_path / "letter.tif", save_all=True, append_images=pages[1:], compression="tiff_lzw")
    found = pipeline.annotate(tmp_path / "letter.tif")
    assert [page.signed for page in found.pages] == [True, False, True]
    assert [page.number for page in found.pages] == [1, 2, 3]
    assert found.signed
    assert found.file == str(tmp_path / "letter.tif")
    alone = pipeline.annotate(pages[2]).pages[0]
    assert found.pages[2].marks == alone.marks
    with pytest.raises(SignVerError, match="more than 2 pages"):
        pipeline.annotate(tmp_path / "letter.tif", max_pages=2)


def test_a_signature_is_verified_against_its_writer(enrolled, pictures):
    good = enrolled.verify("writer 1", pictures / "1-3.png")
    assert good.genuine
    assert (good.references, good.threshold) == (3, 0.7)
    assert good.probability == pytest.approx(1 / (1 + np.exp(-(20 * good.similarity - 14))))
    other = enrolled.verify("writer 2", pictures / "1-3.png")
    assert not other.genuine
    assert other.similarity < good.similarity
    references = enrolled.embed([pictures / f"1-{number}.png" for number in range(3)])
    questioned = enrolled.embed([pictures / "1-3.png"])
    assert good.similarity == pytest.approx(
        Matcher(consistency=0.9).similarity(references, questioned), abs=1e-6
    )
    with pytest.raises(SignVerError, match="'nobody' is not enrolled; enrolled: writer 0, writer 1"):
        enrolled.verify("nobody", pictures / "1-3.png")


def test_a_signature_is_identified_or_nobodys(enrolled, pictures, models):
    for writer in range(4):
        found = enrolled.identify(pictures / f"{writer}-3.png")
        assert found.identity == f"writer {writer}"
        assert len(found.candidates) == 4
    stranger = enrolled.identify(signature(77))
    assert stranger.identity is None
    assert not stranger.candidates[0].genuine
    assert len(enrolled.identify(pictures / "0-3.png", count=2).candidates) == 2
    empty = Pipeline(extractor=MetricExtractor(1).load(models.extractor)).identify(signature(0))
    assert (empty.identity, empty.candidates) == (None, ())


def test_lines_are_taken_off_before_comparing(enrolled, models):
    clean, noisy = signature(2, 3), lined(signature(2, 3))
    straight = enrolled.verify("writer 2", clean).similarity
    assert enrolled.verify("writer 2", noisy).similarity == pytest.approx(straight, abs=0.06)
    assert enrolled.verify("writer 2", noisy, clean=False).similarity < straight - 0.06
    bare = Pipeline(extractor=MetricExtractor(1).load(models.extractor))
    np.testing.assert_array_equal(bare.embed([noisy]), enrolled.embed([noisy], clean=False))


def test_writers_are_named_on_pages(enrolled):
    found = enrolled.annotate(page_with(signature(3, 3)), identify=True)
    (mark,) = found.pages[0].marks
    assert mark.writer.identity == "writer 3"
    assert found.as_dict()["pages"][0]["marks"][0]["writer"]["identity"] == "writer 3"


def test_documents_are_searched_for_a_hand(pipeline, pictures, tmp_path):
    for writer in range(4):
        page_with(signature(writer, 3)).save(tmp_path / f"letter{writer}.png")
    hits = pipeline.search(pictures / "2-0.png", sorted(tmp_path.iterdir()))
    assert [hit.genuine for hit in hits] == [True, False, False, False]
    assert hits[0].file == str(tmp_path / "letter2.png")
    assert hits[0].similarity > hits[1].similarity > hits[3].similarity
    assert json.loads(json.dumps([hit.as_dict() for hit in hits]))[0]["page"] == 1
    (alone,) = pipeline.search(pictures / "2-0.png", tmp_path / "letter2.png")
    assert alone == hits[0]


def test_enrolling_takes_all_or_nothing(pipeline, pictures, tmp_path):
    Image.new("RGB", (200, 100), "white").save(tmp_path / "empty.png")
    with pytest.raises(SignVerError, match=r"empty\.png: no signature"):
        pipeline.enroll("ada", [pictures / "0-0.png", tmp_path / "empty.png"])
    assert len(pipeline.index) == 0
    with pytest.raises(SignVerError, match="no picture"):
        pipeline.enroll("ada", [])
    assert pipeline.enroll("ada", pictures / "0-0.png") == 1
    assert pipeline.enroll("ada", [signature(0, 1), np.asarray(signature(0, 2))]) == 3


def test_an_index_is_of_its_extractor(enrolled, models, tmp_path, pictures):
    enrolled.save_index(tmp_path / "writers.index")
    again = Pipeline(
        cleaner=Cleaner(1).load(models.cleaner), extractor=MetricExtractor().load(models.extractor)
    )
    again.load_index(tmp_path / "writers.index")
    assert again.identify(pictures / "2-3.png") == enrolled.identify(pictures / "2-3.png")
    other = MetricExtractor(1).load(write_extractor(tmp_path / "other.onnx", seed=1))
    with pytest.raises(SignVerError, match="another extractor"):
        Pipeline(extractor=other).load_index(tmp_path / "writers.index")


def test_many_threads_get_the_answers_of_one(enrolled, pictures):
    pages = [page_with(signature(writer, 3), place=(300 + 60 * writer, 500)) for writer in range(4)]

    def ask(number):
        writer = number % 4
        return (
            enrolled.annotate(pages[writer], identify=True).as_dict(),
            enrolled.verify(f"writer {writer}", pictures / f"{(writer + number // 4) % 4}-3.png"),
            enrolled.identify(pictures / f"{writer}-3.png"),
        )

    alone = [ask(number) for number in range(16)]
    with ThreadPoolExecutor(16) as pool:
        assert list(pool.map(ask, range(16 * 8))) == alone * 8


def test_a_model_is_loaded_once_and_only_when_needed(models):
    loads = []

    def load():
        loads.append(1)
        return Detector(1).load(models.detector)

    pipeline = Pipeline(detector=load, extractor=lambda: pytest.fail("not needed"))
    assert loads == []
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(pipeline.annotate, [Image.new("RGB", (90, 90), "white")] * 24))
    assert loads == [1]


@pytest.mark.parametrize("kind", ["detector", "cleaner", "extractor"])
def test_a_model_that_was_not_named_is_asked_for(kind):
    with pytest.raises(SignVerError, match=f"the {kind}; none was named"):
        getattr(Pipeline(), kind)


def test_a_free_batch_gives_what_single_crops_give(tmp_path):
    single = Cleaner(1).load(write_cleaner(tmp_path / "one.onnx"))
    batched = Cleaner(1).load(write_cleaner(tmp_path / "many.onnx", "batch"))
    crops = [lined(signature(number)) for number in range(11)]
    for one, other in zip(single.clean(crops), batched.clean(crops), strict=True):
        np.testing.assert_array_equal(one, other)
    assert single.clean([]) == []
    floats = np.random.default_rng(0).random((9, 224, 224, 3)).astype(np.float32)
    np.testing.assert_array_equal(single.clean(floats), batched.clean(floats))


def test_signver_s_own_readme_runs(models):
    """Names, order of arguments and shapes of SignVer's README and of programs written for it."""
    detector, cleaner, extractor = Detector(), Cleaner(), MetricExtractor()
    detector.load(str(models.detector))
    cleaner.load(str(models.cleaner))
    extractor.load(str(models.extractor))
    from signver import get_image_crops, visualize_boxes

    page = np.asarray(page_with(signature(0)))
    boxes, scores, classes, detections = detector.detect(page[np.newaxis])
    assert (len(boxes), len(scores), len(classes)) == (1, 1, 1)
    assert int(detections["num_detections"][0]) == 1
    annotated = visualize_boxes(page, boxes, scores, threshold=0.22, color="green")
    assert annotated.shape == page.shape
    signatures = get_image_crops(page[np.newaxis], boxes, scores, threshold=0.22)
    cleaned = cleaner.clean(np.array(signatures))
    assert [ink.dtype for ink in cleaned] == [np.uint8]
    squares = np.stack([np.asarray(signature(n).resize((224, 224))) for n in (0, 1)]) * (1.0 / 255)
    cleaned = cleaner.clean(squares)
    features = extractor.extract(cleaned)
    first, second = features[0, :], features[1, :]
    matcher = Matcher()
    assert matcher.cosine_distance(first, first) == pytest.approx(0, abs=1e-6)
    assert matcher.verify(first, first)
    assert not matcher.verify(first, second, threshold=0.18)
    assert extractor.extract(np.array(squares)).shape == (2, 32)


def test_an_extractor_takes_the_size_that_its_file_asks_for(tmp_path):
    small = Image.fromarray(np.asarray(signature(0).convert("L"))).resize((150, 60))
    plain = MetricExtractor(1).load(write_extractor(tmp_path / "plain.onnx"))
    assert plain.input_size == (96, 192)
    np.testing.assert_array_equal(plain.normalise(small), normalise_signature(small, (96, 192), 0))
    asks = write_extractor(tmp_path / "asks.onnx", **{"signver.enlarge_below": "384"})
    found = MetricExtractor(1).load(asks).normalise(small)
    np.testing.assert_array_equal(found, normalise_signature(small, (96, 192), 384))
    assert np.abs(found - plain.normalise(small)).max() > 0.1


@pytest.mark.parametrize("text", ["[96]", "[0, 192]", "96", "{"])
def test_a_damaged_input_size_is_said(tmp_path, text):
    path = write_extractor(tmp_path / "x.onnx", **{"signver.input_size": text})
    with pytest.raises(SignVerError, match=r"damaged metadata .*; export the model anew"):
        MetricExtractor(1).load(path)


def test_a_damaged_calibration_is_refused(tmp_path):
    for text in ("{", "[1]", '{"slope": NaN, "offset": 1}'):
        path = write_extractor(tmp_path / "x.onnx", **{"signver.calibration": text})
        with pytest.raises(SignVerError, match=r"signver\.calibration"):
            MetricExtractor().load(path)


@pytest.mark.parametrize("text", ["", "none", "nan", "1.5"])
def test_a_damaged_consistency_is_refused(tmp_path, text):
    path = write_extractor(tmp_path / "x.onnx", **{"signver.consistency": text})
    with pytest.raises(SignVerError, match=r"signver\.consistency"):
        MetricExtractor().load(path)


def test_pages_come_as_bytes_and_images(pipeline, tmp_path):
    page, stream = page_with(signature(1)), io.BytesIO()
    page.save(stream, "PNG")
    expected = pipeline.annotate(page)
    assert pipeline.annotate(stream.getvalue()) == expected
    assert pipeline.annotate(np.asarray(page)) == expected
    (found,) = pipeline.signatures(page)
    assert found[0] == 1
    assert found[1] == expected.pages[0].marks[0]
    assert found[2].dtype == np.uint8


def test_small_models_are_what_they_say(models, tmp_path):
    assert isinstance(models, Models)
    found = Detector(1).load(write_detector(tmp_path / "d.onnx")).detect(page_with(signature(0)))
    assert found.boxes.shape == (1, 4)
