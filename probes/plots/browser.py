"""Figures as images and as animations, drawn by a Chromium without a window, where one is installed."""

from __future__ import annotations

import base64
import io
import re
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import unquote

from probes.plots import fonts

if TYPE_CHECKING:
    import plotly.graph_objects as go

WIDTH = 960  # pixels
_BROWSERS = (
    *("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome"),
    *(f"/Applications/{name}.app/Contents/MacOS/{name}" for name in ("Google Chrome", "Chromium")),
)
_PATIENCE = 120  # seconds for one page
_SVG, _PNG = "data:image/svg+xml,", "data:image/png;base64,"
_PAUSE, _REST = 700, 2500  # milliseconds that a frame of an animation stands, and the last one
_COLOURS = 256  # of an animation, the most that a GIF holds
_UNSEEN = ("--headless", "--no-sandbox", "--disable-gpu", "--virtual-time-budget=60000")
# The SVG is an image of the sheet: in one, a browser runs no script and opens no other file, whoever wrote it.
_SHEET = """<!doctype html><html><head><style>@page {{ size: {width}px {height}px; margin: 0 }}
body {{ margin: 0 }} img {{ display: block; width: {width}px; height: {height}px }}</style></head>
<body><img src="data:image/svg+xml;base64,{image}"></body></html>"""
_SIZE = re.compile(r"""<svg\b[^>]*?\swidth=["'](\d+)(?:px)?["'][^>]*?\sheight=["'](\d+)(?:px)?["']""")
# The faces are in the page, where Plotly measures its type, and in each drawing, whose own they must be: as an image it
# sees no others. So a figure is the same on every machine.
_PAGE = """<!doctype html><html><head><style id="faces">{faces}</style><script>
let seed = 1; Math.random = () => (seed = seed * 16807 % 2147483647) / 2147483647;  // Plotly's ids, the same each time
</script><script>{plotly}</script></head><body><script>
const figures = {figures}, format = "{format}", size = {{width: {width}, height: {height}}};
const faces = document.getElementById("faces");
const withFaces = svg => svg.replace(/<svg[^>]*>/, start => start + "<style>" + faces.textContent + "</style>");
const paint = async svg => {{
  const picture = new Image(), canvas = Object.assign(document.createElement("canvas"), size);
  picture.src = "data:image/svg+xml," + encodeURIComponent(withFaces(svg));
  await picture.decode();
  canvas.getContext("2d").drawImage(picture, 0, 0);
  return canvas.toDataURL("image/png");
}};
(async () => {{
  await Promise.all(Array.from(document.fonts, face => face.load()));
  const images = [];
  for (const figure of figures) {{
    const image = await Plotly.toImage(figure, {{format: "svg", ...size}});
    images.push(format === "svg" ? image : await paint(decodeURIComponent(image.replace("{svg}", ""))));
  }}
  document.body.textContent = images.join("\\n");
}})();
</script></body></html>"""


def find_browser() -> str | None:
    """The Chromium of this machine; None where there is none."""
    return next((path for name in _BROWSERS if (path := shutil.which(name))), None)


def to_svg(figure: go.Figure, browser: str) -> str:
    """A figure as SVG; empty where that failed."""
    images = _draw([figure], browser, "svg")
    return unquote(images[0].removeprefix(_SVG)) if images and images[0].startswith(_SVG) else ""


def to_pdf(image: str, browser: str) -> bytes:
    """An SVG, sized in pixels, as a PDF of one page of its size with its fonts in it; empty where that failed.

    It gets the figures' own faces. What else the SVG uses lies in it (`data:` addresses): a picture elsewhere is not
    fetched.
    """
    size = _SIZE.search(image)
    if size is None:
        return b""
    encoded = base64.b64encode(fonts.with_fonts(image).encode()).decode()
    sheet = _SHEET.format(image=encoded, width=size.group(1), height=size.group(2))
    with tempfile.TemporaryDirectory(prefix="gravity-probe-") as folder:
        path = Path(folder) / "figure.pdf"
        _visit(sheet, browser, "--no-pdf-header-footer", f"--print-to-pdf={path}")
        return path.read_bytes() if path.is_file() else b""


def to_gif(figures: Sequence[go.Figure], browser: str) -> bytes:
    """Figures of one size as an animation that repeats and rests at the last one; empty where that failed."""
    from PIL import Image

    images = _draw(figures, browser, "png")
    if len(images) != len(figures) or not all(image.startswith(_PNG) for image in images):
        return b""
    pictures = [Image.open(io.BytesIO(base64.b64decode(image.removeprefix(_PNG)))).convert("RGB") for image in images]
    # By coverage: the marks of the arms are small, and their colours are what the picture says.
    frames = [picture.quantize(_COLOURS, method=Image.Quantize.MAXCOVERAGE) for picture in pictures]
    animation = io.BytesIO()
    pauses = [_PAUSE] * (len(frames) - 1) + [_REST]
    frames[0].save(animation, "GIF", save_all=True, append_images=frames[1:], duration=pauses, loop=0, disposal=2)
    return animation.getvalue()


def _draw(figures: Sequence[go.Figure], browser: str, kind: str) -> list[str]:
    """Each figure as a data URL; none where drawing failed."""
    from plotly.offline import get_plotlyjs

    text = _PAGE.format(
        faces="".join(map(fonts.rules, fonts.FAMILIES)),
        plotly=get_plotlyjs(),
        figures=f"[{','.join(str(figure.to_json()) for figure in figures)}]".replace("</", "<\\/"),
        format=kind,
        width=WIDTH,
        height=_height(figures[0]),
        svg=_SVG,
    )
    drawn = _visit(text, browser, "--dump-dom")
    body = drawn[drawn.rfind("<body") :]
    start = body.find("data:image/")
    return body[start:].split("</body>")[0].split("\n")[: len(figures)] if start >= 0 else []


def _height(figure: go.Figure) -> int:
    return int(figure.layout.height or 450)


def _visit(page: str, browser: str, *options: str) -> str:
    """What a Chromium without a window prints of a page; empty where that failed."""
    with tempfile.TemporaryDirectory(prefix="gravity-probe-") as folder:
        file = Path(folder) / "page.html"
        file.write_text(page, encoding="utf-8")
        command = [browser, *_UNSEEN, *options, f"--user-data-dir={folder}/profile", file.as_uri()]
        try:
            return subprocess.run(command, capture_output=True, text=True, timeout=_PATIENCE, check=False).stdout
        except (OSError, subprocess.TimeoutExpired):
            return ""
