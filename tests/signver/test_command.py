"""The command line on real exports: JSON, pictures, folders and patterns, exit codes."""

import io
import json
import os
import pathlib
import subprocess
import sys
import time

import numpy as np
import onnx
import pytest
from conftest import page_with, signature
from onnx import TensorProto, helper
from PIL import Image

from signver import SignVerError, command, get_image_crops, visualize_boxes
from signver.progress import Progress


def model(path, kind, inputs, outputs, nodes, initializers, **metadata):
    graph = helper.make_graph(nodes, kind, inputs, outputs, initializers)
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    entries = {"signver.format": "1", "signver.model": kind} | metadata
    helper.set_model_props(made, entries)
    onnx.checker.check_model(made)
    onnx.save(made, str(path))
    return path


@pytest.fixture(scope="module")
def detector(tmp_path_factory):
    """A real ONNX file with the detector's contract, which always finds the same three marks."""
    answers = {
        "detection_boxes": np.array([[[0.1, 0.2, 0.3, 0.6], [0.5, 0.1, 0.7, 0.4], [0, 0, 1, 1]]], np.float32),
        "detection_scores": np.array([[0.9, 0.6, 0.1]], np.float32),
        "detection_classes": np.array([[1, 2, 1]], np.int32),
        "num_detections": np.array([3], np.int32),
    }
    kinds = {np.dtype(np.float32): TensorProto.FLOAT, np.dtype(np.int32): TensorProto.INT32}
    constants = [onnx.numpy_helper.from_array(value, f"{name}_value") for name, value in answers.items()]
    return model(
        tmp_path_factory.mktemp("models") / "detector.onnx",
        "detector",
        [helper.make_tensor_value_info("image", TensorProto.UINT8, [1, "height", "width", 3])],
        [helper.make_tensor_value_info(n, kinds[v.dtype], list(v.shape)) for n, v in answers.items()],
        [helper.make_node("Identity", [f"{name}_value"], [name]) for name in answers],
        constants,
        **{
            "signver.classes": '{"1": "signature", "2": "date"}',
            "signver.input_size": "[64, 64]",
            "signver.score_threshold": "0.3",
        },
    )


@pytest.fixture(scope="module")
def cleaner(tmp_path_factory):
    """A real ONNX file with the cleaner's contract, which halves the darkness."""
    shape = [1, 224, 224, 3]
    return model(
        tmp_path_factory.mktemp("models") / "cleaner.onnx",
        "cleaner",
        [helper.make_tensor_value_info("input", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("output", TensorProto.FLOAT, shape)],
        [
            helper.make_node("Mul", ["input", "half"], ["halved"]),
            helper.make_node("Add", ["halved", "half"], ["output"]),
        ],
        [onnx.numpy_helper.from_array(np.array(0.5, np.float32), "half")],
    )


@pytest.fixture
def pages(tmp_path):
    folder = tmp_path / "pages"
    folder.mkdir()
    for number in range(3):
        Image.new("RGB", (200, 100), (40 * number,) * 3).save(folder / f"page{number}.png")
    (folder / "notes.txt").write_text("no picture")
    return folder


def run(*arguments):
    done = subprocess.run(
        [sys.executable, "-m", "signver", *map(str, arguments)], capture_output=True, text=True
    )
    return done.returncode, done.stdout, done.stderr


def test_detect_says_what_is_on_each_page(detector, pages, tmp_path):
    code, out, _ = run("detect", pages, f"--detector={detector}", "--json", f"--output={tmp_path / 'marked'}")
    assert code == 0
    found = json.loads(out)
    assert [entry["file"] for entry in found["files"]] == [str(pages / f"page{n}.png") for n in range(3)]
    first = found["files"][0]
    assert [(mark["class"], mark["score"]) for mark in first["marks"]] == [("signature", 0.9), ("date", 0.6)]
    assert first["marks"][0]["box"] == [0.1, 0.2, 0.3, 0.6]
    marked = np.asarray(Image.open(first["picture"]))
    assert marked.shape == (100, 200, 3)
    assert (marked != np.asarray(Image.open(first["file"]))).any()


def test_the_threshold_is_the_callers(detector, pages):
    _, out, _ = run("detect", pages / "page0.png", f"--detector={detector}", "--threshold=0.7")
    assert out.count("signature 0.90") == 1
    assert "date" not in out


def test_clean_takes_crops_or_finds_them_first(detector, cleaner, pages, tmp_path):
    output = tmp_path / "clean"
    code, _, _ = run("clean", f"{pages}/*.png", f"--cleaner={cleaner}", f"--output={output}")
    assert code == 0
    assert sorted(path.name for path in output.iterdir()) == ["page0.png", "page1.png", "page2.png"]
    image = np.asarray(Image.open(output / "page0.png"))
    assert image.shape == (112, 224)
    assert set(image.ravel()) <= {127, 128}
    code, out, _ = run(
        "clean",
        pages / "page1.png",
        f"--cleaner={cleaner}",
        f"--detector={detector}",
        f"--output={output}/found",
    )
    assert code == 0
    # The date is no signature, the third mark scores too little.
    assert [path.name for path in (output / "found").iterdir()] == ["page1-1.png"]
    assert "page1-1.png" in out


def test_a_damaged_file_is_said_and_the_others_are_done(detector, pages):
    (pages / "broken.png").write_bytes((pages / "page0.png").read_bytes()[:60])
    code, out, err = run("detect", pages, f"--detector={detector}")
    assert code == 1
    assert "broken.png" in err
    assert len(out.splitlines()) == 3


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["detect", "nowhere.png", "--detector={detector}"], "nowhere.png: no such file"),
        (["detect", "{pages}", "--detector={pages}/page0.png"], "not a model"),
        (["detect", "{pages}", "--detector={cleaner}"], "no signver detector"),
        (["detect", "{pages}", "--detector={detector}", "--threshold=2"], "not between 0 and 1"),
        (["verify", "{pages}", "--extractor={detector}"], "--name and --index, or give --reference"),
        (["verify", "{pages}", "--extractor={detector}", "--reference=a.png"], "no signver extractor"),
        (["identify", "{pages}", "--index={detector}", "--extractor={pages}/page0.png"], "not a model"),
        (["annotate", "{pages}", "--detector={detector}", "--require=stamped"], "'stamped' is none of"),
        (["annotate", "{pages}", "--detector={detector}", "--threads=-1"], "no whole number from 0"),
        (["clean", "{pages}", "--cleaner={cleaner}"], "--output FOLDER"),
        (["detect", "{pages}", "--bundle={pages}"], "manifest.json"),
        (["clean", "{pages}", "--output=o", "--threshold=0.5"], "score of marks on --pages, which was not"),
        (["verify", "{pages}", "--reference=a.png", "--threshold=0.9"], "genuine there is --similarity"),
        (["detect", "{pages}", "--detector={detector}", "--output={pages}"], "page0.png: a picture of the"),
        (["clean", "{pages}/page1.png", "--cleaner={cleaner}", "--output={pages}"], "another --output"),
        (["detect", "a" * 300, "--detector={detector}"], "File name too long"),
        (["enroll", "{pages}/page0.png", "{pages}/page1.png", "--index=i"], "is a file; the writer's name"),
        (
            ["verify", "{pages}", "--name=ada", "--index=no.index"],
            "`signver enroll NAME PICTURES --index no.",
        ),
        (["writers", "--index=no.index"], "no.index: no such file"),
    ],
)
def test_mistakes_exit_with_2(detector, cleaner, pages, arguments, message):
    places = {"detector": detector, "cleaner": cleaner, "pages": pages}
    code, _, err = run(*(argument.format(**places) for argument in arguments))
    assert code == 2
    assert message in err
    assert "Traceback" not in err


def test_pages_are_annotated_and_judged(models, tmp_path):
    page_with(signature(0)).save(tmp_path / "signed.png")
    Image.new("RGB", (300, 400), "white").save(tmp_path / "blank.png")
    options = models.options("detector")
    code, out, _ = run("annotate", tmp_path, *options)
    assert code == 0
    assert out.splitlines()[0] == f"{tmp_path / 'blank.png'}: no mark found"
    assert out.splitlines()[2:] == [f"{tmp_path / 'signed.png'}: signed", "  signature 0.90"]
    assert run("annotate", tmp_path / "signed.png", *options, "--require=signed")[0] == 0
    code, out, _ = run("annotate", tmp_path, *options, "--require", "signed", "--json")
    assert code == 3
    assert [file["answer"] for file in json.loads(out)["files"]] == [False, True]
    (tmp_path / "broken.png").write_bytes(b"x")
    code, out, err = run("annotate", tmp_path, *options, "--require=signed", "--json")
    assert code == 1
    assert json.loads(out)["errors"][0]["file"] == str(tmp_path / "broken.png")
    assert "broken.png" in err


def test_a_document_of_several_pages_is_one_answer(models, tmp_path):
    page = page_with(signature(1), size=(500, 650), place=(40, 400))
    blank = Image.new("RGB", page.size, "white")
    blank.save(tmp_path / "letter.tif", save_all=True, append_images=[page, blank])
    options = [*models.options("detector"), f"--output={tmp_path / 'marked'}"]
    code, out, _ = run("annotate", tmp_path / "letter.tif", *options)
    assert code == 0
    assert out.splitlines() == [f"{tmp_path / 'letter.tif'}: signed", "  page 2: signature 0.90"]
    assert [path.name for path in (tmp_path / "marked").iterdir()] == ["letter-2.png"]
    _, out, _ = run("detect", tmp_path / "letter.tif", *models.options("detector"), "--json")
    (mark,) = json.loads(out)["files"][0]["marks"]
    assert (mark["page"], mark["class"]) == (2, "signature")


def test_writers_are_enrolled_verified_identified_and_searched(models, pictures, tmp_path):
    index = f"--index={tmp_path / 'writers.index'}"
    options = models.options("extractor", "cleaner")
    for writer in range(3):
        code, out, _ = run("enroll", f"writer {writer}", f"{pictures}/{writer}-[012].png", index, *options)
        assert code == 0
    assert out.splitlines()[-1] == f"{pictures}/2-2.png: writer 2 has 3 signatures"
    genuine, forged = pictures / "1-3.png", pictures / "0-3.png"
    code, out, _ = run("verify", genuine, "--name=writer 1", index, *options)
    assert (code, out.startswith(f"{genuine}: genuine (similarity 0.")) == (0, True)
    code, out, _ = run("verify", genuine, forged, "--name=writer 1", index, *options, "--json")
    assert code == 3
    assert [file["genuine"] for file in json.loads(out)["files"]] == [True, False]
    references = [f"--reference={pictures}/1-{number}.png" for number in range(3)]
    code, out, _ = run("verify", genuine, *references, *options, f"--output={tmp_path / 'seen'}", "--json")
    assert code == 0
    picture = json.loads(out)["files"][0]["picture"]
    assert Image.open(picture).width == 224
    code, out, _ = run("identify", genuine, index, *options, "--json", "--count=2")
    found = json.loads(out)["files"][0]
    assert (code, found["identity"], len(found["candidates"])) == (0, "writer 1", 2)
    assert run("identify", pictures / "3-3.png", index, *options)[0] == 3
    assert run("verify", genuine, "--name=writer 1", index, *options, "--similarity=0.999")[0] == 3
    code, _, err = run("verify", genuine, "--name=nobody", index, *options)
    assert (code, "'nobody' is not enrolled" in err) == (2, True)


def test_documents_are_searched_and_signatures_found_on_pages(models, pictures, tmp_path):
    for writer in range(2):
        page_with(signature(writer, 3)).save(tmp_path / f"letter{writer}.png")
    options = [*models.options(), f"--output={tmp_path / 'hits'}"]
    code, out, _ = run("search", pictures / "1-0.png", f"{tmp_path}/*.png", *options)
    assert code == 0
    assert out.splitlines()[0].startswith(f"{tmp_path}/letter0.png: not found (most alike: 0.")
    assert out.splitlines()[1].startswith(f"{tmp_path}/letter1.png: page 1 0.")
    assert [path.name for path in (tmp_path / "hits").iterdir()] == ["letter1.png"]
    assert run("search", pictures / "1-0.png", tmp_path / "letter0.png", *options)[0] == 3
    references = [f"--reference={pictures}/1-{number}.png" for number in range(2)]
    # With a detector the files, references too, are pages.
    page = f"--reference={tmp_path}/letter1.png"
    assert run("verify", tmp_path / "letter1.png", page, *models.options())[0] == 0
    assert run("verify", tmp_path / "letter0.png", page, *models.options())[0] == 3
    assert run("verify", tmp_path / "letter1.png", *references, *models.options("extractor"))[0] == 0


def test_a_document_of_several_hands_is_verified_by_the_one_most_alike(models, pictures, tmp_path):
    pages = [page_with(signature(writer, 3), size=(500, 650), place=(40, 400)) for writer in (0, 1)]
    letter = tmp_path / "letter.tif"
    pages[0].save(letter, save_all=True, append_images=pages[1:])
    for writer, page in ((0, 1), (1, 2)):
        # On a picture of a signature alone the detector finds none: it is the reference itself.
        reference = f"--reference={pictures}/{writer}-0.png"
        code, out, _ = run("verify", letter, reference, *models.options(), "--json")
        entry = json.loads(out)["files"][0]
        assert (code, entry["page"], entry["signatures"], len(entry["box"])) == (0, page, 2, 4)
    _, out, _ = run("verify", letter, reference, *models.options())
    assert out.rstrip().endswith("; page 2, the most alike of 2)")
    assert run("verify", letter, f"--reference={pictures}/2-0.png", *models.options())[0] == 3
    _, out, _ = run("annotate", letter, *models.options("detector"), "--require=signed,dated")
    assert out.splitlines()[0].endswith("; missing: dated")


def test_a_page_taken_for_a_signature_is_asked_about(models, tmp_path):
    page_with(signature(0)).resize((1200, 1600)).save(tmp_path / "letter.png")
    options = models.options("extractor", "cleaner")
    _, _, err = run("enroll", "ada", tmp_path / "letter.png", f"--index={tmp_path / 'i'}", *options)
    assert "1200x1600 pixels; if it is a page, add --pages" in err
    page_with(signature(0)).resize((1200, 900)).save(tmp_path / "crop.png")
    _, _, err = run("enroll", "ada", tmp_path / "crop.png", f"--index={tmp_path / 'i'}", *options)
    assert "add --pages" not in err


def test_an_index_is_listed_forgets_and_takes_no_picture_twice(models, pictures, tmp_path):
    index = f"--index={tmp_path / 'writers.index'}"
    options = models.options("extractor", "cleaner")
    first = pictures / "0-0.png"
    assert run("enroll", "ada", first, pictures / "0-1.png", index, *options)[0] == 0
    code, out, _ = run("enroll", "ada", first, index, *options, "--json")
    entry = json.loads(out)["files"][0]
    assert (code, entry["references"], entry["known"]) == (0, 2, True)
    assert "had this picture already, and has 2 signatures" in run("enroll", "ada", first, index, *options)[1]
    run("enroll", "bob", pictures / "1-0.png", index, *options)
    assert run("writers", index)[1] == "ada: 2 signatures\nbob: 1 signatures\n"
    code, out, _ = run("writers", index, "--json", "--remove=ada")
    assert (code, json.loads(out)) == (0, {"writers": [{"identity": "bob", "references": 1}]})
    code, _, err = run("writers", index, "--remove=ada")
    assert (code, "'ada' is not enrolled" in err) == (2, True)
    assert run("identify", first, index, *options)[0] == 3


def test_no_file_that_is_read_is_replaced(models, pictures, tmp_path):
    folder = tmp_path / "letters"
    folder.mkdir()
    page_with(signature(1, 3)).save(folder / "letter.png")
    # The first numbered picture of the one has the other's name.
    page_with(signature(0)).save(folder / "letter-1.png")
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    options = [*models.options("detector", "cleaner"), f"--output={folder}"]
    code, _, err = run("clean", "--pages", *(folder / name for name in before), *options)
    assert (code, "letter-1.png: a picture of the answer would replace" in err) == (1, True)
    references = [f"--reference={folder / 'letter.png'}", *models.options()]
    (tmp_path / "letter.png").write_bytes(before["letter.png"])
    code, _, err = run("verify", tmp_path / "letter.png", *references, f"--output={folder}")
    assert (code, "another --output" in err) == (2, True)
    assert {name: (folder / name).read_bytes() for name in before} == before
    # Pages of a document are numbered: no picture of this one is called letter.png.
    blank = Image.new("RGB", (60, 60), "white")
    blank.save(tmp_path / "letter.tif", save_all=True, append_images=[blank])
    both = [tmp_path / "letter.tif", tmp_path / "other/letter.png"]
    both[1].parent.mkdir()
    both[1].write_bytes(before["letter.png"])
    assert run("detect", *both, *models.options("detector"), f"--output={both[1].parent}")[0] == 0
    # What an earlier run drew is drawn anew.
    again = [
        "annotate",
        *(folder / name for name in before),
        *models.options("detector"),
        f"--output={tmp_path / 'seen'}",
    ]
    assert [run(*again)[0] for _ in range(2)] == [0, 0]
    assert sorted(path.name for path in (tmp_path / "seen").iterdir()) == sorted(before)


def test_names_that_are_no_text_and_readers_that_leave(detector, tmp_path):
    names = [b"lettre_\xe9.png", *(b"z%d.png" % number for number in range(3000))]
    stream = io.BytesIO()
    Image.new("RGB", (40, 30), "white").save(stream, "PNG")
    for name in names:
        with open(os.path.join(os.fsencode(tmp_path), name), "wb") as file:
            file.write(stream.getvalue())
    arguments = [sys.executable, "-m", "signver", "detect", str(tmp_path), f"--detector={detector}"]
    environment = os.environ | {"PYTHONIOENCODING": "utf-8:strict"}
    with subprocess.Popen(
        arguments, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment
    ) as reading:
        first = reading.stdout.readline()
        reading.stdout.close()
        err = reading.stderr.read()
    assert first.startswith(f"{tmp_path}/lettre_\\udce9.png: ")
    assert err == ""
    assert reading.returncode == 1


def test_one_name_in_two_folders_gives_two_pictures(models, tmp_path):
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        page_with(signature(0)).save(tmp_path / folder / ("page.png" if folder == "a" else "Page.png"))
    options = [*models.options("detector"), f"--output={tmp_path / 'o'}", "--json"]
    code, out, _ = run("detect", tmp_path / "b", tmp_path / "a", *options)
    assert code == 0
    pictures = {entry["file"]: entry["picture"] for entry in json.loads(out)["files"]}
    assert pictures == {
        # Where case makes no difference Page.png would be written over.
        str(tmp_path / "b/Page.png"): str(tmp_path / "o/Page.png"),
        str(tmp_path / "a/page.png"): str(tmp_path / "o/page_2.png"),
    }


def test_files_done_at_a_time_give_the_answers_of_one_after_the_other(models, pictures, tmp_path):
    folder = tmp_path / "letters"
    folder.mkdir()
    for number in range(7):
        # The first take longest: they come in last where four are done at a time.
        side = 2000 - 250 * number
        page_with(signature(number)).resize((side, side)).save(folder / f"letter{number}.png")
    (folder / "letter3.png").write_bytes(b"no picture")
    found = {}
    for threads in (1, 4):
        output = tmp_path / f"marked{threads}"
        code, out, err = run(
            "annotate", folder, *models.options(), "--json", f"--output={output}", f"--threads={threads}"
        )
        assert code == 1
        assert err.startswith("error: ")
        found[threads] = json.loads(out.replace(str(output), ""))
        found[threads]["pictures"] = {path.name: path.read_bytes() for path in output.iterdir()}
    assert found[1] == found[4]
    assert len(found[1]["files"]) == 6
    assert "letter3.png" in found[1]["errors"][0]["file"]


def test_a_fault_of_the_program_ends_it_and_what_waits_is_not_begun():
    begun = []

    def work(file):
        begun.append(file)
        time.sleep(0.05)
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        command._do([str(number) for number in range(50)], work, 2, quiet=True)
    assert len(begun) < 10


def test_without_models_it_says_what_to_name(pages, monkeypatch, capsys):
    monkeypatch.setattr("signver.bundle.default_bundle", lambda: None)
    assert command.main(["annotate", str(pages)]) == 2
    assert "name --bundle FOLDER, or --detector FILE" in capsys.readouterr().err


def test_the_bar_is_for_terminals():
    class Terminal(io.StringIO):
        def isatty(self):
            return True

    shown, log = Terminal(), io.StringIO()
    for stream in (shown, log):
        progress = Progress(4, stream)
        for _ in range(4):
            progress.step()
        progress.clear()
    assert log.getvalue() == ""
    bars = shown.getvalue().split("\r")
    assert bars[2].startswith("[############............] 2/4")
    assert bars[4].startswith("[########################] 4/4")
    few = Terminal()
    Progress(2, few).step()
    assert few.getvalue() == ""


def test_the_version_is_that_of_the_installed_package(capsys):
    with pytest.raises(SystemExit) as ended:
        command.main(["--version"])
    assert ended.value.code == 0
    name, found = capsys.readouterr().out.split()
    assert name == "signver"
    assert f'\nversion = "{found}"\n' in (pathlib.Path(__file__).parents[2] / "pyproject.toml").read_text()


def test_help_loads_nothing_and_teaches():
    code = "import sys; from signver import command\ntry: command.main(['--help'])\nexcept SystemExit: pass\n"
    code += "print([name for name in ('numpy', 'PIL', 'onnxruntime') if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"
    for name in ("annotate", "detect", "clean", "enroll", "verify", "identify", "search"):
        assert f"\n  signver {name} " in done.stdout
    assert "exit codes:" in done.stdout


def test_files_are_named_once(pages):
    names = [str(pages), f"{pages}/page1.png", f"{pages}/*.png"]
    assert len(list(command.find_files(names))) == 3


def test_crops_stay_on_the_page_and_hold_a_pixel():
    page = np.arange(100 * 200 * 3, dtype=np.uint8).reshape(100, 200, 3)
    boxes = np.array([[0.1, 0.2, 0.3, 0.6], [0.5, 0.5, 0.5, 0.5], [-1, -1, 2, 2], [0.9, 0.9, 1, 1]])
    crops = get_image_crops(page, boxes, np.array([0.9, 0.9, 0.9, 0.1]))
    assert [crop.shape for crop in crops] == [(20, 80, 3), (1, 1, 3), (100, 200, 3)]
    assert np.array_equal(crops[0], page[10:30, 40:120])
    assert len(get_image_crops(page, boxes)) == 4
    wider = get_image_crops(page, boxes[:1], margin=0.5)[0]
    assert wider.shape == (40, 160, 3)


def test_boxes_that_make_no_sense_are_refused():
    page = np.zeros((10, 10), np.uint8)
    with pytest.raises(SignVerError, match="1 boxes and 2 scores"):
        get_image_crops(page, np.array([[0, 0, 1, 1]]), np.array([0.5, 0.5]))
    with pytest.raises(SignVerError, match="no number"):
        visualize_boxes(page, np.array([[0, 0, np.nan, 1]]))
    with pytest.raises(SignVerError, match="color 'nocolour'"):
        visualize_boxes(page, np.array([[0, 0, 1, 1]]), color="nocolour")
    with pytest.raises(SignVerError, match=r"^2 boxes"):
        visualize_boxes(page, np.array([[0, 0, 1, 1]] * 2), scores=[0.5])
    assert visualize_boxes(page, np.empty((0, 4))).shape == (10, 10, 3)
