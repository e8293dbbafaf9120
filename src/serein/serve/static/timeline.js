/** The table of scores over time, as the server gives it, and what the page reads from it. */

/**
 * @typedef {{start: number, end: number, silent: boolean, scores: Record<string, number>}} Window  seconds
 * @typedef {{start: number, end: number, label: string, score: number}} Segment  seconds; label "silence" in pauses
 * @typedef {{labels: string[], hop: number, seconds: number, windows: Window[], segments: Segment[],
 *            warnings?: string[]}} Timeline  warnings: none while it grows
 * @typedef {{start: number, end: number, scores: number[] | null}} Cell
 *   a piece as long as the hop: the mean of the windows that cover it, in the order of the labels; null: silence
 */

export const SILENCE = "silence";

/** Till where it was judged: windows of a stream that broke, or still runs, end earlier. @returns {number} seconds */
export const heardOf = ({ seconds, windows }) => Math.min(seconds, windows.at(-1)?.end ?? 0);

/**
 * As the server does it: windows over the middle of a cell count. What was not judged has no cells.
 *
 * @param {Timeline} timeline @returns {Cell[]}
 */
export function cellsOf(timeline) {
  const { labels, hop, windows, segments } = timeline;
  const seconds = heardOf(timeline);
  const pauses = segments.filter((segment) => segment.label === SILENCE);
  let [first, pause] = [0, 0];
  return Array.from({ length: Math.ceil(seconds / hop - 1e-6) }, (_, i) => {
    const [start, end] = [i * hop, Math.min((i + 1) * hop, seconds)];
    const middle = (start + end) / 2;
    while (first < windows.length && windows[first].end <= middle) first++;
    while (pause < pauses.length && pauses[pause].end <= middle) pause++;
    const covering = [];
    if (!(pauses[pause]?.start <= middle)) {
      for (let w = first; w < windows.length && windows[w].start <= middle; w++) {
        if (!windows[w].silent) covering.push(windows[w].scores);
      }
    }
    const mean = (label) => covering.reduce((sum, scores) => sum + scores[label], 0) / covering.length;
    return { start, end, scores: covering.length ? labels.map(mean) : null };
  });
}

/**
 * Neighbouring cells with the same best label, merged: for a timeline that still grows and has no segments yet.
 *
 * @param {Cell[]} cells @param {string[]} labels @returns {Segment[]}
 */
export function mergeCells(cells, labels) {
  const runs = [];
  for (const { start, end, scores } of cells) {
    const score = scores ? Math.max(...scores) : 0;
    const label = scores ? labels[scores.indexOf(score)] : SILENCE;
    const last = runs.at(-1);
    if (last?.label === label) Object.assign(last, { end, sum: last.sum + score, count: last.count + 1 });
    else runs.push({ start, end, label, sum: score, count: 1 });
  }
  return runs.map(({ start, end, label, sum, count }) => ({ start, end, label, score: sum / count }));
}

/** @param {number} seconds @returns {string} 75.24 -> "1:15.2" */
export function clock(seconds) {
  const tenths = Math.floor(seconds * 10 + 1e-6);
  const [hours, minutes] = [Math.floor(tenths / 36000), Math.floor(tenths / 600) % 60];
  const rest = ((tenths % 600) / 10).toFixed(1).padStart(4, "0");
  return hours ? `${hours}:${String(minutes).padStart(2, "0")}:${rest}` : `${minutes}:${rest}`;
}

/** @param {number} score @returns {string} 0.814 -> "81 %" */
export const percent = (score) => `${Math.round(100 * score)}\u202f%`;
