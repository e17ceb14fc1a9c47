"""The two faces of a printed figure as files, which an SVG carries with it.

They are static: Chromium puts a static font into a PDF as TrueType, and a variable one, as the front end's are, only as
drawings of its letters (Type 3), which some journals refuse.
"""

from __future__ import annotations

import base64
from functools import cache

from probes.prompts import data_folder

FAMILIES = {"Source Sans": "source-sans-3", "Source Serif": "source-serif-4"}
_PARTS = {  # of a face, a file each: the characters that it holds
    "latin": "U+0000-00FF,U+0131,U+0152-0153,U+02BB-02BC,U+02C6,U+02DA,U+02DC,U+0304,U+0308,U+0329,U+2000-206F,U+20AC,"
    "U+2122,U+2191,U+2193,U+2212,U+2215,U+FEFF,U+FFFD",
    "latin-ext": "U+0100-02BA,U+02BD-02C5,U+02C7-02CC,U+02CE-02D7,U+02DD-02FF,U+1D00-1DBF,U+1E00-1E9F,U+1EF2-1EFF,"
    "U+2020,U+20A0-20AB,U+20AD-20C4,U+2113,U+2C60-2C7F,U+A720-A7FF",
    "greek": "U+0370-0377,U+037A-037F,U+0384-038A,U+038C,U+038E-03A1,U+03A3-03FF",
}
_RULE = (
    '@font-face{{font-family:"{family}";unicode-range:{characters};'
    'src:url(data:font/woff2;base64,{content}) format("woff2")}}'
)


@cache
def rules(family: str) -> str:
    """The style sheet's rules of a face, with its files in them."""
    return "".join(
        _RULE.format(family=family, characters=characters, content=_encode(f"{FAMILIES[family]}-{part}-400-normal"))
        for part, characters in _PARTS.items()
    )


def _encode(name: str) -> str:
    return base64.b64encode((data_folder() / "fonts" / f"{name}.woff2").read_bytes()).decode()


def with_fonts(svg: str) -> str:
    """An SVG that carries the faces that it names."""
    style = "".join(rules(family) for family in FAMILIES if family in svg)
    start = svg.find(">", svg.find("<svg")) + 1
    return f"{svg[:start]}<style>{style}</style>{svg[start:]}"
