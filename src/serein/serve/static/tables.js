/** The timeline as text: tables the same to the letter as `serein timeline` writes them, JSON and RTTM the same facts. */

import { SILENCE } from "./timeline.js";

/** @typedef {import("./timeline.js").Timeline} Timeline */

const words = (text, between) => text.trim().split(/\s+/).join(between);
const quoted = (field) => (/[",\r\n]/.test(field) ? `"${field.replaceAll('"', '""')}"` : field);

/** @type {Record<string, {suffix: string, type: string, write: (timeline: Timeline, name: string) => string}>} */
export const FORMATS = {
  csv: {
    suffix: ".csv",
    type: "text/csv",
    write: ({ labels, windows }) =>
      [
        ["start", "end", "silent", ...labels.map(quoted)],
        ...windows.map(({ start, end, silent, scores }) => [
          start.toFixed(6),
          end.toFixed(6),
          Number(silent),
          ...labels.map((label) => scores[label].toFixed(6)),
        ]),
      ]
        .map((row) => `${row.join(",")}\n`)
        .join(""),
  },
  json: {
    suffix: ".json",
    type: "application/json",
    write: ({ type, ...timeline }) => `${JSON.stringify(timeline, null, 2)}\n`, // the type is the stream's
  },
  audacity: {
    suffix: ".txt",
    type: "text/plain",
    write: ({ segments }) =>
      segments.map((s) => `${s.start.toFixed(6)}\t${s.end.toFixed(6)}\t${words(s.label, " ")}\n`).join(""),
  },
  rttm: {
    suffix: ".rttm",
    type: "text/plain",
    write: ({ segments }, name) =>
      segments
        .filter((s) => s.label !== SILENCE)
        .map((s) => {
          const [start, duration] = [s.start.toFixed(3), (s.end - s.start).toFixed(3)];
          return `SPEAKER ${words(name, "_")} 1 ${start} ${duration} <NA> <NA> ${words(s.label, "_")} <NA> <NA>\n`;
        })
        .join(""),
  },
};

/** Hand a file to the user. @param {Blob} blob @param {string} name */
export function save(blob, name) {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(blob);
  link.download = name;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href)); // not before the browser has taken it
}
