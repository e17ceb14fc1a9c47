"""The few rules of style and of behaviour that Streamlit has no option for."""

from app import in_turn
from probes.plots import keys

# The font of commands is asked for early: where one comes while figures are drawn, Plotly draws them all again.
CSS = """
<style>
.stApp::before { content: "."; font: 1px "Source Code Pro"; position: absolute; opacity: 0; pointer-events: none; }
.block-container { max-width: 1120px; padding-left: 2.5rem; padding-right: 2.5rem; }
.gp-kicker { font-size: .8rem; letter-spacing: .09em; text-transform: uppercase; opacity: .7; margin: 0 0 -.4rem; }
.gp-lead { font-size: 1.08rem; line-height: 1.55; max-width: 46rem; margin: 0 0 .5rem; }
.gp-note { font-size: .85rem; opacity: .65; max-width: 46rem; margin: 0; }
.gp-missing { font-size: 1rem; max-width: 46rem; margin: 1.2rem 0 0; }
.gp-numbers { display: flex; flex-wrap: wrap; gap: 1.2rem 2.4rem; margin: .6rem 0 .4rem; }
.gp-number b {
  display: block; font: 400 2.5rem/1.2 "Source Serif", Georgia, serif; font-variant-numeric: tabular-nums lining-nums;
}
.gp-number span { display: block; font-size: .85rem; opacity: .68; max-width: 13.4rem; }
.gp-wide { overflow-x: auto; }
.gp-ladder { border-collapse: collapse; margin: .4rem 0 0; font-size: .95rem; }
.gp-ladder td, .gp-ladder th {
  border: 0 !important; padding: .3rem 1.4rem .3rem 0 !important; text-align: left; vertical-align: middle;
}
.gp-ladder th { font-weight: 400; font-size: .8rem; opacity: .7; }
.gp-ladder td.n { text-align: right; font-variant-numeric: tabular-nums; white-space: nowrap; }
.gp-rungs, .gp-ladder td:has(.gp-rungs) { white-space: nowrap; }
.gp-ladder td:has(.gp-rungs) + td { min-width: 12rem; }
.gp-rungs i {
  display: inline-block; width: 15px; height: 9px; margin-right: 3px;
  background: color-mix(in srgb, currentColor 13%, transparent);
}
.gp-said { border-collapse: collapse; margin: .4rem 0 .6rem; font-size: .95rem; }
.gp-said td, .gp-said th {
  border: 0 !important; padding: .35rem 1.6rem .35rem 0 !important; text-align: left; vertical-align: top;
}
.gp-said th { font-weight: 400; font-size: .8rem; opacity: .65; }
.gp-said td:first-child { white-space: nowrap; opacity: .68; }
.gp-said td { white-space: pre-wrap; overflow-wrap: anywhere; max-width: 30rem; }
.gp-cards { max-height: 640px; overflow-y: auto; padding-right: .6rem; }
.gp-card { border-top: 1px solid color-mix(in srgb, currentColor 16%, transparent); padding: .55rem 0 .6rem; }
.gp-card p { margin: 0 0 .3rem; font-size: .95rem; line-height: 1.4; overflow-wrap: anywhere; }
.gp-card p.gp-card-about { font-size: .8rem; opacity: .7; }
.gp-card p.gp-card-answer { font-size: .88rem; white-space: pre-wrap; }
.gp-card-answer span { display: block; font-size: .8rem; opacity: .7; }
.st-key-workbench > [data-testid=stLayoutWrapper] > [data-testid=stHorizontalBlock],
.st-key-map-shown > [data-testid=stLayoutWrapper] > [data-testid=stHorizontalBlock] { flex-wrap: wrap; }
.st-key-map-shown [data-testid=stColumn]:first-child { min-width: min(100%, 20rem); }
.st-key-workbench > [data-testid=stLayoutWrapper] > [data-testid=stHorizontalBlock] > [data-testid=stColumn] {
  min-width: min(100%, 22rem);
}
.st-key-copy-link[data-copied]::after { font-size: .85rem; opacity: .68; }
.st-key-copy-link[data-copied="yes"]::after { content: "Copied."; }
.st-key-copy-link[data-copied="no"]::after { content: "Copy it from the address bar."; }
.gp-command {
  display: flex; align-items: flex-start; gap: 1rem; padding: .7rem .9rem; border-radius: .4rem;
  background: color-mix(in srgb, currentColor 6%, transparent);
}
.gp-command pre { flex: 1; margin: 0; padding: 0; background: none; white-space: pre-wrap; overflow-wrap: anywhere; }
.gp-command code { padding: 0; background: none; color: inherit; font: .875rem/1.6 "Source Code Pro", monospace; }
.gp-command button {
  border: 0; padding: 0; background: none; color: inherit; font: inherit; font-size: .8rem; text-align: right;
  min-width: 4rem; min-height: 1.5rem; opacity: .7; cursor: pointer;
}
.gp-command button:is(:hover, :focus-visible) { opacity: 1; text-decoration: underline; }
[data-testid=stElementContainer]:has(> .stHtml > script), [class*="st-key-draw-rest"] { display: none; }
@media (max-width: 960px) {
  .block-container { padding-left: 1.4rem; padding-right: 1.4rem; }
  section[data-testid="stSidebar"] { width: 13.5rem !important; min-width: 13.5rem !important; }
  section[data-testid="stSidebar"] button { padding-left: .5rem; padding-right: .5rem; }
  .st-key-layer-previous button p, .st-key-layer-next button p { white-space: normal; line-height: 1.15; }
  .gp-ladder { font-size: .85rem; }
  [class*="st-key-dense-"] .heatmap-label { display: none; }
  .gp-ladder td, .gp-ladder th { padding-right: .7rem !important; }
  .gp-rungs i { width: 8px; margin-right: 2px; }
}
</style>
"""

# Streamlit gives a drawn figure's layout back to Plotly after each turn of a camera, and so loses what the user did
# when the next figure comes. This keeps the camera of each 3-D chart by its key, as long as the tab is open, turns the
# scenes of one chart together, and tells `app.camera`, which puts the camera into the address; how far a chart in the
# plane is zoomed it tells `app.zoom`, and at which step one is stopped that can be played `app.playing`.
CAMERAS = """
<script>
(() => {
  if (window.gravityCameras) return;
  const kept = window.gravityCameras = new Map();
  const name = plot => {
    const box = plot.closest("[class*='st-key-chart-']");
    return box ? Array.from(box.classList).find(each => each.startsWith("st-key-chart-")) : null;
  };
  const picture = chart => chart.replace("st-key-chart-", "");
  const same = (one, other) => JSON.stringify(one) === JSON.stringify(other);
  const scenes = plot => Object.keys(plot._fullLayout || {}).filter(key => /^scene[0-9]*$/.test(key));
  const turn = (plot, key, camera) => {
    const scene = plot._fullLayout[key];
    if (!scene || !scene._scene || !scene._scene.camera || same(scene.camera.eye, camera.eye)) return;
    Object.assign(scene.camera, structuredClone(camera));
    if (plot.layout[key]) plot.layout[key].camera = structuredClone(camera);
    scene._scene.setViewport(scene);
  };
  const restore = plot => {
    const camera = kept.get(name(plot));
    if (camera) scenes(plot).forEach(key => turn(plot, key, camera));
  };
  const follow = (plot, change) => {
    const key = scenes(plot).find(scene => change && change[`${scene}.camera`]);
    if (!key) return null;
    const camera = change[`${key}.camera`];
    scenes(plot).filter(scene => scene !== key).forEach(scene => turn(plot, scene, camera));
    return camera;
  };
  const watch = plot => {
    if (plot.gravityWatched || !plot.on) return;
    plot.gravityWatched = true;
    plot.addEventListener("click", event => {  // Plotly's own way back would be to the zoom that was drawn
      plot.gravityWhole = !!event.target.closest(".modebar-btn[data-attr=zoom][data-val=reset]");
    }, true);
    plot.on("plotly_relayouting", change => follow(plot, change));
    plot.on("plotly_sliderchange", ({slider, step}) => {
      const chart = name(plot), view = slider.steps.findIndex(each => each.label === step.label);
      if (chart) document.dispatchEvent(new CustomEvent("gravity-frame", {detail: {picture: picture(chart), view}}));
    });
    plot.on("plotly_relayout", change => {
      const camera = follow(plot, change), chart = name(plot);
      const axis = Object.keys(change || {}).map(key => /^[xy]axis(2?)[.](range|autorange)/.exec(key)).find(Boolean);
      if (chart && axis) {
        const panel = axis[1], {[`xaxis${panel}`]: x, [`yaxis${panel}`]: y} = plot._fullLayout;
        const view = {panel, ranges: plot.gravityWhole ? [] : [...x.range, ...y.range]};
        plot.gravityWhole = false;
        document.dispatchEvent(new CustomEvent("gravity-zoom", {detail: {picture: picture(chart), view}}));
      }
      if (!camera || !chart) return;
      kept.set(chart, structuredClone(camera));
      const detail = {picture: picture(chart), view: structuredClone(camera)};
      document.dispatchEvent(new CustomEvent("gravity-camera", {detail}));
    });
    plot.on("plotly_afterplot", () => restore(plot));
    restore(plot);
  };
  const look = () => document.querySelectorAll(".js-plotly-plot").forEach(watch);
  new MutationObserver(look).observe(document.body, {childList: true, subtree: true});
  look();
})();
</script>
"""

# The address is the whole view, so copying it shares the view; a command's button copies the command. The left and
# right arrow keys press the buttons that step through the layers, unless a control or a chart has the focus.
LINK = """
<script>
(() => {
  if (window.gravityLink) return;
  window.gravityLink = true;
  const copy = async words => {
    const place = document.activeElement;
    try {
      await navigator.clipboard.writeText(words);
      return true;
    } catch {
      const text = document.createElement("textarea");
      text.value = words;
      document.body.append(text);
      text.select();
      const done = document.execCommand("copy");
      text.remove();
      place.focus({preventScroll: true});
      return done;
    }
  };
  document.addEventListener("click", async event => {
    const box = event.target.closest && event.target.closest(".st-key-copy-link, .gp-command button");
    if (!box) return;
    const command = box.closest(".gp-command");
    const isCopied = await copy(command ? command.querySelector("code").textContent : location.href);
    if (command) {
      box.textContent = isCopied ? "Copied" : "Not copied";
      setTimeout(() => { box.textContent = "Copy"; }, 2500);
    } else {
      box.dataset.copied = isCopied ? "yes" : "no";
      setTimeout(() => delete box.dataset.copied, 2500);
    }
  });
  const ownsArrows = [
    "input", "textarea", "select", "[contenteditable=true]", ".js-plotly-plot", "[data-testid=stDataFrame]",
    ..."radiogroup combobox listbox slider tablist menu grid region dialog".split(" ").map(role => `[role=${role}]`),
  ].join();
  document.addEventListener("keydown", event => {
    const side = {ArrowLeft: "previous", ArrowRight: "next"}[event.key];
    if (!side || event.altKey || event.ctrlKey || event.metaKey || event.shiftKey || event.defaultPrevented) return;
    if (document.activeElement && document.activeElement.closest(ownsArrows)) return;
    const button = document.querySelector(`.st-key-layer-${side} button`);
    if (button) button.click();
  });
})();
</script>
"""

# A figure's own button saves it under a name that does not say the place, or else Plotly would draw a figure anew at
# each place, even one that is the same everywhere. This adds the place, which the page says in a variable of its style.
PLACE = '<style>:root {{ --gp-place: "{}"; --gp-save: {}; }}</style>'
NAMES = """
<script>
(() => {
  if (window.gravityNames) return;
  window.gravityNames = true;
  document.addEventListener("click", event => {
    const link = event.target;
    if (!(link instanceof HTMLAnchorElement) || link.dataset.gravity || !/[.]svg$/.test(link.download)) return;
    const place = getComputedStyle(document.documentElement).getPropertyValue("--gp-place").replace(/["']/g, "").trim();
    if (place) link.download = link.download.replace(/[.]svg$/, end => `-${place}${end}`);
  }, true);
})();
</script>
"""

# Plotly's own button saves an SVG that names its fonts. This puts the page's fonts into it, so that it looks the same
# where they are not installed, and draws a PNG of that where one is wanted; where a PDF is to be made of it,
# `app.printing` gets it without them, and puts static ones into it. No tag may be written in it: Streamlit drops such a
# script.
FONTS = """
<script>
(() => {
  if (window.gravityFonts) return;
  window.gravityFonts = true;
  const faces = () => Array.from(document.styleSheets).flatMap(sheet => {
    try {
      return Array.from(sheet.cssRules);
    } catch {
      return [];
    }
  }).filter(rule => rule instanceof CSSFontFaceRule && rule.style.getPropertyValue("font-style") !== "italic");
  const inline = async rule => {
    const source = /url\\(["']?([^"')]+)["']?\\)/.exec(rule.style.getPropertyValue("src"));
    const address = new URL(source[1], rule.parentStyleSheet.href || location.origin);
    const bytes = await (await fetch(address)).blob();
    const data = await new Promise(done => {
      const reader = new FileReader();
      reader.onload = () => done(reader.result);
      reader.readAsDataURL(new Blob([bytes], {type: "font/woff2"}));
    });
    const family = rule.style.getPropertyValue("font-family");
    const weight = rule.style.getPropertyValue("font-weight") || "normal";
    return `@font-face{font-family:${family};font-weight:${weight};src:url(${data}) format("woff2")}`;
  };
  const withFonts = async svg => {
    const used = faces().filter(rule => svg.includes(rule.style.getPropertyValue("font-family").replace(/["']/g, "")));
    const style = document.createElementNS("http://www.w3.org/2000/svg", "style");
    style.textContent = (await Promise.all(used.map(inline))).join("");
    const end = svg.indexOf(">") + 1;  // of the opening tag
    return svg.slice(0, end) + new XMLSerializer().serializeToString(style) + svg.slice(end);
  };
  const inPixels = async svg => {
    const picture = new Image();
    picture.src = URL.createObjectURL(new Blob([svg], {type: "image/svg+xml"}));
    await picture.decode();
    const canvas = document.createElement("canvas"), scale = 3;  // pixels of the file a pixel of the figure
    [canvas.width, canvas.height] = [scale * picture.width, scale * picture.height];
    canvas.getContext("2d").drawImage(picture, 0, 0, canvas.width, canvas.height);
    URL.revokeObjectURL(picture.src);
    return new Promise(done => canvas.toBlob(done, "image/png"));
  };
  const download = (content, name, type) => {
    const link = document.createElement("a");
    link.href = URL.createObjectURL(new Blob([content], {type}));
    link.download = name;
    link.dataset.gravity = "file";
    document.body.append(link);
    link.click();
    link.remove();
    setTimeout(() => URL.revokeObjectURL(link.href), 60000);
  };
  document.addEventListener("gravity-file", event => {
    const {content, name, type} = event.detail;
    download(content, name, type);
  });
  document.addEventListener("click", async event => {
    const link = event.target;
    if (!(link instanceof HTMLAnchorElement) || link.dataset.gravity || !/[.]svg$/.test(link.download)) return;
    event.preventDefault();
    const drawing = fetch(link.href);  // before Plotly takes the address away
    const svg = await (await drawing).text(), name = link.download.replace(/[.]svg$/, "");
    if (document.querySelector(".st-key-as-pdf")) {
      document.dispatchEvent(new CustomEvent("gravity-svg", {detail: {name, svg}}));
    } else if (getComputedStyle(document.documentElement).getPropertyValue("--gp-save").trim() === "png") {
      download(await inPixels(await withFonts(svg)), `${name}.png`, "image/png");
    } else {
      download(await withFonts(svg), `${name}.svg`, "image/svg+xml");
    }
  }, true);
})();
</script>
"""

# Plotly draws every point again for each move of a drag: seconds a frame for 200,000 of them without a graphics card.
# While one of the pictures of many points (those that `app.charts` draws at one pixel each) is dragged, this moves what
# was drawn, as it is, and draws the points once when the drag has ended; till then the side that comes in is empty.
PANNING = """
<script>
(() => {
  if (window.gravityPanning) return;
  window.gravityPanning = true;
  const hold = plot => {
    const layout = plot._fullLayout, parts = Object.values(layout._plots || {}), scene = (parts[0] || {})._scene;
    if (parts.length !== 1 || !scene) return;
    if (plot.endsDrag) plot.endsDrag();  // of a drag before this one, whose end Plotly has not said
    const {xaxis, yaxis, _size: room} = layout, left = xaxis.range[0], low = yaxis.range[0];
    const canvases = plot.querySelectorAll(".gl-container canvas"), draw = scene.draw, clears = new Map();
    layout._glcanvas.each(layer => layer.regl && clears.set(layer.regl, layer.regl.clear));
    clears.forEach((clear, regl) => { regl.clear = () => {}; });
    scene.draw = () => {};
    let held = true, moved = false;
    const move = () => {
      moved = true;
      const x = (left - xaxis.range[0]) * xaxis._m, y = (low - yaxis.range[0]) * yaxis._m;
      const edges = [room.t - y, room.r + x, room.b + y, room.l - x].map(edge => `${edge}px`).join(" ");
      canvases.forEach(({style}) => {
        style.transform = `translate(${x}px, ${y}px)`;
        style.clipPath = `inset(${edges})`;
      });
    };
    const release = () => {
      if (!held) return;
      held = false;
      plot.removeListener("plotly_relayouting", move);
      plot.removeListener("plotly_relayout", release);
      clears.forEach((clear, regl) => { regl.clear = clear; });
      scene.draw = draw;
      if (!moved) return;
      clears.forEach((clear, regl) => clear({color: true, depth: true}));
      scene.draw();
      canvases.forEach(({style}) => { style.transform = style.clipPath = ""; });
    };
    plot.endsDrag = release;
    plot.on("plotly_relayouting", move);
    plot.on("plotly_relayout", release);
    // A click moves nothing; after a drag Plotly says by itself that it has ended.
    const end = () => (moved ? setTimeout(release, 3000) : release());
    window.addEventListener("mouseup", end, {capture: true, once: true});
  };
  document.addEventListener("mousedown", event => {
    const plot = event.button === 0 && event.target.matches(".nsewdrag") && event.target.closest(".js-plotly-plot");
    const many = plot && plot._context.plotGlPixelRatio === 1;
    if (many && plot._fullLayout.dragmode === "pan") hold(plot);
  }, true);
})();
</script>
"""
SCRIPTS = CAMERAS + LINK + in_turn.SCRIPT + NAMES + FONTS + PANNING + f"<script>{keys.SCRIPT}</script>"
