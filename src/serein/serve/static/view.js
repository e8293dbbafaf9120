/**
 * Which part of the recording is in view. The track gets as wide as the zoom asks for, so that the browser scrolls it;
 * the picture in it stays where it is and shows what the view has come to, since nothing draws 100,000 pixels.
 */

const CLOSEST = 5; // seconds: a view shows no less

/**
 * @param {{view: HTMLElement, track: HTMLElement, zoom: HTMLElement,
 *          "zoom-in": HTMLButtonElement, "zoom-out": HTMLButtonElement}} parts
 * @param {() => void} onChange another part is in view, or the same one in another size
 */
export function makeView({ view, track, zoom, "zoom-in": closer, "zoom-out": wider }, onChange) {
  let seconds = 1; // that the track's whole width stands for
  let factor = 1;
  let most = 1;

  const scale = () => track.clientWidth / seconds; // pixels a second
  const range = () => {
    const from = view.scrollLeft / scale();
    return { from, to: from + seconds / factor };
  };
  const sees = (time) => time >= range().from && time <= range().to;

  function apply() {
    track.style.width = `${100 * factor}%`;
    zoom.hidden = most === 1;
    // not disabled: a button that is disabled while it is pressed loses the keyboard's focus
    closer.setAttribute("aria-disabled", String(factor >= most));
    wider.setAttribute("aria-disabled", String(factor <= 1));
  }

  view.addEventListener("scroll", onChange);
  new ResizeObserver(onChange).observe(view);

  return {
    range,
    sees,
    /** @param {number} whole seconds of the track @param {boolean} zoomable not while it still grows */
    span(whole, zoomable) {
      seconds = whole;
      most = zoomable ? 2 ** Math.max(0, Math.floor(Math.log2(whole / CLOSEST))) : 1;
      factor = Math.min(factor, most);
      apply();
    },
    reset() {
      factor = 1;
      apply();
    },
    /** @param {number} times e.g. 2 or 0.5 @param {number} place that stays where it is, if it can be seen */
    zoom(times, place) {
      const { from, to } = range();
      const fixed = sees(place) ? place : (from + to) / 2;
      const offset = (fixed - from) * scale();
      factor = Math.max(1, Math.min(most, factor * times));
      apply();
      view.scrollLeft = fixed * scale() - offset;
      onChange();
    },
    reveal(time) {
      if (!sees(time)) view.scrollLeft = time * scale() - view.clientWidth / 2;
    },
    /** @param {PointerEvent} event @returns {number} seconds; the nearest in view, wherever the pointer is */
    timeAt({ clientX }) {
      const { from, to } = range();
      return Math.max(from, Math.min(to, (clientX - track.getBoundingClientRect().left) / scale()));
    },
    /** @returns {string} how far from the track's left a time lies, for the style sheet */
    left: (time) => `${(100 * time) / seconds}%`,
  };
}
