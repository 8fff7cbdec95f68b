"""Pieces of HTML that every part of the report uses."""

from __future__ import annotations

import base64
import html
from collections.abc import Sequence

import cv2
import numpy as np


def section(title: str, body: str) -> str:
    """A headed part of the page; `body` is HTML."""
    return f"<section><h2>{html.escape(title)}</h2>{body}</section>\n"


def tiles(figures: Sequence[tuple[str, str, str]]) -> str:
    """Boxes with a value, its name and a note."""
    boxes = []
    for figure in figures:
        value, name, note = (html.escape(text) for text in figure)
        boxes.append(f"<div><strong>{value}</strong><b>{name}</b><i>{note}</i></div>")
    return f"<div class='tiles'>{''.join(boxes)}</div>"


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table of texts."""
    cells = "".join(f"<th>{html.escape(name)}</th>" for name in head)
    body = "".join(
        "<tr>" + "".join(f"<td>{html.escape(cell)}</td>" for cell in row) + "</tr>" for row in rows
    )
    return f"<div class='scroll'><table><thead><tr>{cells}</tr></thead><tbody>{body}</tbody></table></div>"


def picture(grey: np.ndarray, words: str) -> str:
    """An `<img>` that holds a grey image (uint8 [h, w]) itself."""
    return png_picture(cv2.imencode(".png", grey)[1].tobytes(), words)


def png_picture(png: bytes, words: str) -> str:
    """An `<img>` that holds a PNG file itself."""
    encoded = base64.b64encode(png).decode()
    return f"<img alt='{html.escape(words)}' src='data:image/png;base64,{encoded}'>"
