"""A page's whole way: find the marks, cut them out, leave the ink alone, say whose it is."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from signver.documents import MAX_PAGES, document_name, document_pages
from signver.errors import SignVerError
from signver.images import Picture, as_rgb
from signver.index import SignatureIndex
from signver.matcher import Matcher
from signver.once import Once, Source
from signver.results import QUESTIONS, Candidate, Document, Hit, Identification, Mark, Page, Verification
from signver.visualization import get_image_crops

if TYPE_CHECKING:
    from signver.bundle import Bundle
    from signver.cleaner import Cleaner
    from signver.detector import Detector
    from signver.extractor import MetricExtractor

SIGNATURE = QUESTIONS["signed"]
# Added around a box on each side before it is cut out, as a fraction of it: annotators and detectors cut
# the ends of long strokes.
MARGIN = 0.05


class Pipeline:
    """Detector, cleaner, extractor and enrolled writers together.

        pipeline = Pipeline.load("bundle/")
        pipeline.annotate("letter.pdf").signed
        pipeline.enroll("alice", ["a1.png", "a2.png", "a3.png"])
        pipeline.verify("alice", "questioned.png").genuine
        pipeline.identify("questioned.png").identity
        pipeline.search("questioned.png", ["letter1.pdf", "letter2.tif"])

    A model is loaded when it is first needed, once. May be used from several threads; answers do not depend
    on what other threads ask. A signature is a picture of one, cut out of its page; whoever has pages
    takes `signatures` first.

    Args:
      detector, cleaner, extractor: a loaded model, or what loads it; None where what needs it is not asked.
        Without a cleaner, crops are compared as they are.
      score_threshold: what a mark must reach; None takes the detector's own.
      threshold: cosine from which on a signature is genuine; None takes the extractor's own.
    """

    def __init__(
        self,
        *,
        detector: Source[Detector] = None,
        cleaner: Source[Cleaner] = None,
        extractor: Source[MetricExtractor] = None,
        score_threshold: float | None = None,
        threshold: float | None = None,
    ):
        self._detector = Once(detector, "detector")
        self._cleaner = None if cleaner is None else Once(cleaner, "cleaner")
        self._extractor = Once(extractor, "extractor")
        self._matcher: Once[Matcher] = Once(self._make_matcher, "matcher")
        self._score_threshold = score_threshold
        self._threshold = threshold

    @classmethod
    def load(
        cls,
        bundle: str | os.PathLike[str] | Bundle | None = None,
        threads: int = 0,
        *,
        public_key: str | os.PathLike[str] | None = None,
        score_threshold: float | None = None,
        threshold: float | None = None,
    ) -> Pipeline:
        """The models of a bundle, verified now, each loaded when it is first needed.

        Args:
          bundle: its folder, or an opened one; None takes the one that ships with the package.
          threads: cores that one call may use; 0 lets ONNX Runtime take all.
          public_key: as for `Bundle.load`, which opens the bundle; an opened one takes none.
          score_threshold, threshold: as for the class.

        Raises:
          SignVerError: as `Bundle.load`; a key for a bundle that is open already.
        """
        from signver.bundle import Bundle

        if isinstance(bundle, Bundle) and public_key is not None:
            raise SignVerError("this bundle is open already; give the public key to Bundle.load.")
        opened = bundle if isinstance(bundle, Bundle) else Bundle.load(bundle, public_key=public_key)
        return cls(
            detector=lambda: opened.detector(threads),
            cleaner=(lambda: opened.cleaner(threads)) if opened.has("cleaner") else None,
            extractor=lambda: opened.extractor(threads),
            score_threshold=score_threshold,
            threshold=threshold,
        )

    @property
    def detector(self) -> Detector:
        """The detector, loaded now if it was not."""
        return self._detector()

    @property
    def cleaner(self) -> Cleaner:
        """The cleaner, loaded now if it was not."""
        if self._cleaner is None:
            raise SignVerError("this needs a model: the cleaner; none was named.")
        return self._cleaner()

    @property
    def extractor(self) -> MetricExtractor:
        """The extractor, loaded now if it was not."""
        return self._extractor()

    @property
    def index(self) -> SignatureIndex:
        """The enrolled writers."""
        return self._matcher().index

    def annotate(self, document: Picture, *, identify: bool = False, max_pages: int = MAX_PAGES) -> Document:
        """What is on a document: signed? initialled? dated? redacted? And where.

        Args:
          document: a path or the bytes of a picture, a TIFF of several pages or a PDF; a Pillow image;
            uint8 pixels.
          identify: ask of each signature whose it is, too.
          max_pages: a document of more is refused.

        Raises:
          SignVerError: the document cannot be used, or a model is missing.
        """
        pages = []
        for number, page in enumerate(document_pages(document, max_pages), start=1):
            marks = self._marks(page)
            pages.append(self._answered(number, page, self._with_writers(page, marks) if identify else marks))
        return Document(document_name(document), tuple(pages))

    def signatures(self, document: Picture) -> list[tuple[int, Mark, np.ndarray]]:
        """The signatures of a document: page number, mark, and its crop as uint8 [h, w, 3].

        Raises:
          SignVerError: as `annotate`.
        """
        found = []
        for number, page in enumerate(document_pages(document), start=1):
            marks = [mark for mark in self._marks(page) if mark.kind == SIGNATURE]
            found += [(number, mark, crop) for mark, crop in zip(marks, _crops(page, marks), strict=True)]
        return found

    def embed(self, images: Sequence[Picture], *, clean: bool = True) -> np.ndarray:
        """Embeddings of signatures, cleaned before.

        Args:
          images: pictures of one signature each.
          clean: whether they go through the cleaner; False for ink alone.

        Returns:
          float32 [n, d].

        Raises:
          SignVerError: a picture cannot be read or holds no signature, the file named; a model is missing.
        """
        inks = self._inks([_named(as_rgb, image, image) for image in images], clean)
        normalise = self._extractor().normalise
        return self._extractor().embed(
            [_named(normalise, ink, image) for ink, image in zip(inks, images, strict=True)]
        )

    def ink(self, image: Picture, *, clean: bool = True) -> Image.Image:
        """A signature as it is compared: cleaned, where there is a cleaner; 8-bit RGB.

        Raises:
          SignVerError: the picture cannot be read.
        """
        return as_rgb(self._inks([as_rgb(image)], clean)[0])

    def enroll(self, identity: str, images: Sequence[Picture] | Picture, *, clean: bool = True) -> int:
        """Takes signatures as a writer's own; returns how many it has now. All of them or none.

        Args:
          identity: the writer's name.
          images: pictures of one signature each; three to five make a better reference than one.
          clean: as for `embed`.

        Raises:
          SignVerError: as `embed`, or a name that cannot be kept.
        """
        several = list(images) if isinstance(images, list | tuple) else [images]
        if not several:
            raise SignVerError(f"'{identity}': no picture to enroll.")
        return self.index.add(identity, self.embed(several, clean=clean))  # type: ignore[arg-type]

    def verify(self, identity: str, image: Picture, *, clean: bool = True) -> Verification:
        """Whether a signature is of the writer that it claims to be.

        Raises:
          SignVerError: nobody of that name is enrolled; or as `embed`.
        """
        references = self.index.references(identity)
        similarity = self._matcher().similarity(references, self.embed([image], clean=clean))
        candidate = self._candidate(identity, similarity)
        return Verification(
            **candidate.as_dict(), threshold=self._matcher().threshold, references=len(references)
        )

    def identify(self, image: Picture, count: int = 5, *, clean: bool = True) -> Identification:
        """Whose a signature is, of the enrolled writers, or nobody's.

        Raises:
          SignVerError: as `embed`.
        """
        return self._identified(self.embed([image], clean=clean)[0], count)

    def search(
        self, image: Picture, documents: Iterable[Picture] | Picture, *, clean: bool = True
    ) -> list[Hit]:
        """The signatures of documents that are like one: all of them, best first; `genuine` says which count.

        A mark without enough ink to compare is left out.

        Args:
          image: picture of the signature.
          documents: as for `annotate`, one or several.

        Raises:
          SignVerError: as `embed` and `annotate`.
        """
        query = self.embed([image], clean=clean)[0]
        if isinstance(documents, str | bytes | os.PathLike | Image.Image | np.ndarray):
            documents = [documents]
        hits = [hit for document in documents for hit in self.compare(query, document)]
        return sorted(hits, key=lambda hit: -hit.similarity)

    def compare(self, query: np.ndarray, document: Picture) -> list[Hit]:
        """The signatures of one document beside an embedding, in the order of its pages.

        Args:
          query: float [d], of `embed`.
          document: as for `annotate`.

        Raises:
          SignVerError: as `annotate`.
        """
        hits = []
        for number, page in enumerate(document_pages(document), start=1):
            for mark, embedding in self._embedded(page, self._marks(page)):
                candidate = self._candidate("", self._matcher().cosine_similarity(query, embedding))
                hits.append(
                    Hit(
                        document_name(document),
                        number,
                        mark,
                        candidate.similarity,
                        candidate.genuine,
                        candidate.probability,
                    )
                )
        return hits

    def save_index(self, path: str | os.PathLike[str]) -> None:
        """Writes the enrolled writers to a file.

        Raises:
          SignVerError: the file cannot be written.
        """
        self.index.save(path)

    def load_index(self, path: str | os.PathLike[str]) -> None:
        """Reads enrolled writers, in place of those at hand.

        Raises:
          SignVerError: missing, damaged, or made with another extractor.
        """
        self._matcher().load_index(path)

    def _make_matcher(self) -> Matcher:
        extractor = self._extractor()
        threshold = extractor.threshold if self._threshold is None else self._threshold
        return Matcher(threshold, SignatureIndex(extractor.identity), extractor.consistency)

    def _marks(self, page: Image.Image) -> list[Mark]:
        detector = self._detector()
        least = detector.score_threshold if self._score_threshold is None else self._score_threshold
        found = detector.detect(page)
        return [
            Mark(detector.class_names.get(int(label), str(label)), float(score), tuple(map(float, box)))  # type: ignore[arg-type]
            for box, score, label in zip(found.boxes, found.scores, found.classes, strict=True)
            if score >= least
        ]

    def _answered(self, number: int, page: Image.Image, marks: Sequence[Mark]) -> Page:
        known, found = set(self._detector().class_names.values()), {mark.kind for mark in marks}
        answers = {question: kind in found if kind in known else None for question, kind in QUESTIONS.items()}
        return Page(number, page.width, page.height, tuple(marks), **answers)

    def _with_writers(self, page: Image.Image, marks: Sequence[Mark]) -> list[Mark]:
        writers = {
            mark: Mark(mark.kind, mark.score, mark.box, self._identified(embedding, 5))
            for mark, embedding in self._embedded(page, marks)
        }
        return [writers.get(mark, mark) for mark in marks]

    def _embedded(self, page: Image.Image, marks: Sequence[Mark]) -> list[tuple[Mark, np.ndarray]]:
        """The signatures among the marks with their embeddings, all in one batch."""
        marks = [mark for mark in marks if mark.kind == SIGNATURE]
        inks = self._inks([Image.fromarray(crop) for crop in _crops(page, marks)], clean=True)
        usable, normalised = [], []
        for mark, ink in zip(marks, inks, strict=True):
            try:
                normalised.append(self._extractor().normalise(ink))
            except SignVerError:
                continue  # too little ink in the box, or a black one
            usable.append(mark)
        return list(zip(usable, self._extractor().embed(normalised), strict=True))

    def _inks(self, crops: Sequence[Image.Image], clean: bool) -> Sequence[Any]:
        return crops if self._cleaner is None or not clean else self._cleaner().clean(list(crops))

    def _identified(self, embedding: np.ndarray, count: int) -> Identification:
        found = [self._candidate(*each) for each in self._matcher().identify(embedding, count=count)]
        best = found[0].identity if found and found[0].genuine else None
        return Identification(best, tuple(found))

    def _candidate(self, identity: str, similarity: float) -> Candidate:
        calibration = self._extractor().calibration
        probability = None if calibration is None else calibration.probability(similarity)
        return Candidate(identity, similarity, similarity >= self._matcher().threshold, probability)


def _crops(page: Image.Image, marks: Sequence[Mark]) -> list[np.ndarray]:
    boxes = np.array([mark.box for mark in marks], np.float64).reshape(-1, 4)
    return get_image_crops(page, boxes, margin=MARGIN)


def _named(work: Callable[[Any], Any], value: Any, image: Picture) -> Any:
    """Says in an error of which file it is."""
    try:
        return work(value)
    except SignVerError as error:
        name = os.fspath(image) if isinstance(image, str | os.PathLike) else "image"
        if name in str(error):
            raise
        raise SignVerError(f"{name}: {error}") from error
