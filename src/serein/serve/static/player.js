/** Playing, and the place in the recording: one slider for mouse, finger, keyboard and screen reader. */

import { clock } from "./timeline.js";

const SPOKEN = 1; // seconds between two words to a screen reader while the place moves by itself

/**
 * @param {{track: HTMLElement, cursor: HTMLElement, ghost: HTMLElement, play: HTMLButtonElement,
 *          time: HTMLElement, length: HTMLElement,
 *          "zoom-in": HTMLButtonElement, "zoom-out": HTMLButtonElement}} parts
 * @param {ReturnType<import("./view.js").makeView>} view
 * @param {(time: number) => string} onPlace called with the place to show scores of; returns it in words
 */
export function makePlayer(parts, view, onPlace) {
  const { track, cursor, ghost, play, time, length } = parts;
  const audio = new Audio();
  let loaded = null;
  let seconds = 0; // of the recording
  let step = 1; // seconds an arrow key moves
  let place = 0;
  let spoken = -1; // which piece of the recording the slider last told of
  let finger = null; // that is on the track, and has not begun to scroll

  function show({ moving = false } = {}) {
    cursor.style.left = view.left(place);
    time.textContent = clock(place);
    const words = onPlace(place);
    const piece = Math.floor(place / Math.max(SPOKEN, step));
    if (moving && piece === spoken) return; // a screen reader would be told 60 times a second
    spoken = piece;
    track.setAttribute("aria-valuemax", seconds.toFixed(1));
    track.setAttribute("aria-valuenow", place.toFixed(1));
    track.setAttribute("aria-valuetext", `${clock(place)} of ${clock(seconds)}: ${words}`);
  }

  function seek(to) {
    place = Math.max(0, Math.min(seconds, to));
    if (audio.src) audio.currentTime = place;
    view.reveal(place);
    show();
  }

  function follow() {
    if (audio.paused) return;
    const seen = view.sees(place);
    place = Math.min(seconds, audio.currentTime);
    if (seen) view.reveal(place); // unless the user has scrolled to look at another part
    show({ moving: true });
    requestAnimationFrame(follow);
  }

  function toggle() {
    if (!audio.src || play.disabled) return;
    if (!audio.paused) return audio.pause();
    if (place >= seconds - 0.05) seek(0);
    audio.play().catch((error) => {
      if (error.name === "NotSupportedError") play.disabled = true; // decoded by the server, but not by this browser
    });
  }

  function showState() {
    play.setAttribute("aria-label", audio.paused ? "Play" : "Pause");
  }

  audio.addEventListener("play", () => {
    showState();
    follow();
  });
  audio.addEventListener("pause", () => {
    showState();
    show();
  });
  audio.addEventListener("ended", () => seek(seconds));
  audio.addEventListener("error", () => (play.disabled = true));
  play.addEventListener("click", toggle);

  track.addEventListener("pointerdown", (event) => {
    if (event.button !== 0) return;
    ghost.hidden = true;
    if (event.pointerType === "touch") return (finger = event.pointerId); // it may be about to scroll
    track.setPointerCapture(event.pointerId);
    seek(view.timeAt(event));
  });
  track.addEventListener("pointermove", (event) => {
    if (event.pointerType === "touch") return;
    if (track.hasPointerCapture(event.pointerId)) return seek(view.timeAt(event));
    const at = Math.min(seconds, view.timeAt(event));
    const { from, to } = view.range();
    const [best] = onPlace(at).split(",");
    ghost.hidden = false;
    ghost.dataset.text = `${clock(at)} · ${best}`;
    ghost.classList.toggle("late", at > (from + to) / 2);
    ghost.style.left = view.left(at);
  });
  track.addEventListener("pointerup", (event) => {
    if (event.pointerId === finger) seek(view.timeAt(event));
    finger = null;
  });
  track.addEventListener("pointercancel", () => (finger = null));
  track.addEventListener("pointerleave", () => {
    ghost.hidden = true;
    onPlace(place);
  });

  const zoomIn = () => view.zoom(2, place);
  const zoomOut = () => view.zoom(0.5, place);
  parts["zoom-in"].addEventListener("click", zoomIn);
  parts["zoom-out"].addEventListener("click", zoomOut);
  track.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.altKey || event.metaKey) return; // the browser's own keys
    const moves = { ArrowRight: step, ArrowUp: step, ArrowLeft: -step, ArrowDown: -step, PageUp: 10, PageDown: -10 };
    if (event.key in moves) seek(place + moves[event.key]);
    else if (event.key === "Home") seek(0);
    else if (event.key === "End") seek(seconds);
    else if (event.key === " ") toggle();
    else if (event.key === "+" || event.key === "=") zoomIn();
    else if (event.key === "-") zoomOut();
    else return;
    event.preventDefault(); // the page does not scroll
  });

  return {
    /** From the start, unless it is the one that is loaded. @param {Blob | null} recording null: nothing to play yet */
    load(recording) {
      if (recording && recording === loaded) return;
      loaded = recording;
      audio.pause();
      showState(); // the browser drops its own event when another source comes
      if (audio.src) URL.revokeObjectURL(audio.src);
      if (recording) audio.src = URL.createObjectURL(recording);
      else audio.removeAttribute("src");
      play.disabled = !recording;
      place = 0;
      view.reset();
    },
    /** @param {{seconds: number, step: number, live: boolean}} span live: the place is its end, which moves */
    span({ live, ...span }) {
      ({ seconds, step } = span);
      place = live ? seconds : Math.min(seconds, place);
      length.textContent = clock(seconds);
      show({ moving: live });
    },
  };
}
