"""The play button and the slider of a figure by keyboard, which Plotly leaves to the pointer.

One script, for the front end (`app.look`) and for figures that are saved as HTML (`html_page`). Both become controls
that Tab reaches and that say what they are: Enter or the space bar presses a button; arrows, Page Up and Down, Home and
End move the slider, which answers as to the pointer.
"""

from __future__ import annotations

# No tag may be written in it: Streamlit drops such a script.
SCRIPT = """
(() => {
  if (window.gravityKeys) return;
  window.gravityKeys = true;
  const SLIDER = ".slider-group", BUTTON = ".updatemenu-button";
  const describe = (element, about) => Object.entries({tabindex: 0, ...about}).forEach(([name, value]) => {
    if (element.getAttribute(name) !== `${value}`) element.setAttribute(name, value);
  });
  const describeSlider = group => {
    const {steps, active} = group.__data__ || {};
    if (!steps) return;
    describe(group, {
      "role": "slider", "aria-label": "Step", "aria-valuemin": 0, "aria-valuemax": steps.length - 1,
      "aria-valuenow": active, "aria-valuetext": `step ${steps[active].label}`,
    });
  };
  const describeButton = button => describe(button, {
    "role": "button", "aria-label": button.textContent.includes("Play") ? "Play" : "Pause",
  });
  const press = (element, kinds, at) => kinds.forEach(kind => element.dispatchEvent(
    new MouseEvent(kind, {bubbles: true, cancelable: true, view: window, ...at})
  ));
  const moveTo = (group, place) => {
    const tick = group.querySelectorAll(".slider-tick-rect")[place].getBoundingClientRect();
    const at = {clientX: tick.x + tick.width / 2, clientY: tick.y};
    press(group.querySelector(".slider-rail-touch-rect"), ["mousedown", "mouseup"], at);
    describeSlider(group);
  };
  const place = (key, active, last) => {
    const far = Math.max(2, Math.round(last / 10));
    const places = {
      ArrowLeft: active - 1, ArrowDown: active - 1, ArrowRight: active + 1, ArrowUp: active + 1,
      PageDown: active - far, PageUp: active + far, Home: 0, End: last,
    };
    return key in places ? Math.min(Math.max(places[key], 0), last) : null;
  };
  document.addEventListener("keydown", event => {
    if (event.altKey || event.ctrlKey || event.metaKey || !(event.target instanceof Element)) return;
    const group = event.target.closest(SLIDER), button = event.target.closest(BUTTON);
    if (group) {
      const {active, steps} = group.__data__, to = place(event.key, active, steps.length - 1);
      if (to === null) return;
      event.preventDefault();
      moveTo(group, to);
    } else if (button && (event.key === "Enter" || event.key === " ")) {
      event.preventDefault();
      press(button, ["click"], {});
    }
  });
  const look = () => {
    document.querySelectorAll(SLIDER).forEach(describeSlider);
    document.querySelectorAll(BUTTON).forEach(describeButton);
  };
  new MutationObserver(look).observe(document.body, {childList: true, subtree: true});
  look();
})();
"""
