/** A row for each emotion: colour, name, score; with a bar where there is room for one. */

import { percent } from "./timeline.js";

/** Emotions after the eighth share their colours with the first ones; their names still tell them apart. */
export const colourOf = (index) => `emotion-${index % 8}`;

/**
 * @param {HTMLElement} list
 * @param {string[]} labels
 * @returns {(scores: number[] | null) => void} shows scores in the order of the labels; null: none
 */
export function listScores(list, labels) {
  const rows = labels.map((label, index) => {
    const row = document.createElement("li");
    row.className = colourOf(index);
    const [name, bar, value] = ["name", "bar", "value"].map((part) => {
      const span = document.createElement("span");
      span.className = part;
      return span;
    });
    name.textContent = label;
    bar.append(document.createElement("i"));
    row.append(name, bar, value);
    return row;
  });
  list.replaceChildren(...rows);
  return (scores) => {
    const best = scores ? scores.indexOf(Math.max(...scores)) : -1;
    rows.forEach((row, index) => {
      row.classList.toggle("best", index === best);
      row.querySelector("i").style.width = `${scores ? 100 * scores[index] : 0}%`;
      row.querySelector(".value").textContent = scores ? percent(scores[index]) : "";
    });
  };
}
