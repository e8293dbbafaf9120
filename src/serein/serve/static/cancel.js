/**
 * What the promise comes to, unless the signal aborts first: for what cannot be stopped, but need not be waited for.
 *
 * @template T
 * @param {AbortSignal} signal
 * @param {Promise<T>} promise
 * @returns {Promise<T>}
 */
export function unless(signal, promise) {
  const aborted = new Promise((_, refuse) => {
    signal.throwIfAborted();
    signal.addEventListener("abort", () => refuse(signal.reason), { once: true });
  });
  return Promise.race([promise, aborted]);
}
