/** Playing, and the place in the recording: one slider for mouse, keyboard and screen reader. */

import { clock } from "./timeline.js";

/**
 * @param {{track: HTMLElement, cursor: HTMLElement, ghost: HTMLElement, play: HTMLButtonElement,
 *          time: HTMLElement, length: HTMLElement}} parts
 * @param {(time: number) => string} onPlace called with the place to show scores of; returns it in words
 */
export function makePlayer({ track, cursor, ghost, play, time, length }, onPlace) {
  const audio = new Audio();
  let seconds = 0; // of the recording
  let width = 1; // seconds that the track's width stands for
  let step = 1; // seconds an arrow key moves
  let place = 0;

  const put = (line, at) => (line.style.left = `${(100 * at) / width}%`);

  function show() {
    put(cursor, place);
    time.textContent = clock(place);
    track.setAttribute("aria-valuenow", place.toFixed(1));
    track.setAttribute("aria-valuetext", `${clock(place)} of ${clock(seconds)}: ${onPlace(place)}`);
  }

  function seek(to) {
    place = Math.max(0, Math.min(seconds, to));
    if (audio.src) audio.currentTime = place;
    show();
  }

  function follow() {
    if (audio.paused) return;
    place = Math.min(seconds, audio.currentTime);
    show();
    requestAnimationFrame(follow);
  }

  function toggle() {
    if (!audio.src || play.disabled) return;
    if (!audio.paused) return audio.pause();
    if (place >= seconds - 0.05) seek(0);
    audio.play().catch(() => (play.disabled = true)); // decoded by the server, but not by this browser
  }

  const timeAt = ({ clientX }) => {
    const box = track.getBoundingClientRect();
    return Math.max(0, Math.min(seconds, ((clientX - box.left) / box.width) * width));
  };

  audio.addEventListener("play", () => {
    play.setAttribute("aria-label", "Pause");
    follow();
  });
  audio.addEventListener("pause", () => play.setAttribute("aria-label", "Play"));
  audio.addEventListener("ended", () => seek(seconds));
  audio.addEventListener("error", () => (play.disabled = true));
  play.addEventListener("click", toggle);

  track.addEventListener("pointerdown", (event) => {
    if (event.button !== 0) return;
    track.setPointerCapture(event.pointerId);
    ghost.hidden = true;
    seek(timeAt(event));
  });
  track.addEventListener("pointermove", (event) => {
    if (track.hasPointerCapture(event.pointerId)) return seek(timeAt(event));
    ghost.hidden = false;
    const at = timeAt(event);
    const [best] = onPlace(at).split(",");
    ghost.dataset.text = `${clock(at)} · ${best}`;
    ghost.classList.toggle("late", at > width / 2);
    put(ghost, at);
  });
  track.addEventListener("pointerleave", () => {
    ghost.hidden = true;
    show();
  });
  track.addEventListener("keydown", (event) => {
    const moves = { ArrowRight: step, ArrowUp: step, ArrowLeft: -step, ArrowDown: -step, PageUp: 10, PageDown: -10 };
    if (event.key in moves) seek(place + moves[event.key]);
    else if (event.key === "Home") seek(0);
    else if (event.key === "End") seek(seconds);
    else if (event.key === " ") toggle();
    else return;
    event.preventDefault(); // the page does not scroll
  });

  return {
    /** @param {Blob | null} recording null: there is nothing to play yet */
    load(recording) {
      audio.pause();
      if (audio.src) URL.revokeObjectURL(audio.src);
      if (recording) audio.src = URL.createObjectURL(recording);
      else audio.removeAttribute("src");
      play.disabled = !recording;
      place = 0;
    },
    /** @param {{seconds: number, width?: number, step: number, place?: number}} span */
    span(span) {
      ({ seconds, step } = span);
      width = span.width ?? seconds;
      place = Math.min(seconds, span.place ?? place);
      length.textContent = clock(seconds);
      track.setAttribute("aria-valuemax", seconds.toFixed(1));
      show();
    },
  };
}
