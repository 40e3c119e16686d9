// When things happen: one at a time, as soon as something holds, or after a while. It knows nothing of what happens.

const LOOK_MS = 50;

/** Give a function that runs `work` one at a time; a call during a run makes one more follow. */
export function coalesced(work) {
  let running = null;
  let isWantedAgain = false;
  const run = async () => {
    do {
      isWantedAgain = false;
      await work();
    } while (isWantedAgain);
  };
  return () => {
    isWantedAgain = true;
    running ??= run().finally(() => (running = null));
    return running;
  };
}

/** Wait; an aborted `signal` ends it with its reason. */
export function pause(milliseconds, signal) {
  return new Promise((resume, fail) => {
    signal.throwIfAborted();
    const timer = setTimeout(resume, milliseconds);
    signal.addEventListener("abort", () => (clearTimeout(timer), fail(signal.reason)), { once: true });
  });
}

/** Wait until `condition` gives something true, and give it; undefined if it takes too long. */
export async function until(condition, signal, seconds) {
  const end = Date.now() + seconds * 1000;
  for (let found = condition(); ; found = condition()) {
    if (found || Date.now() > end) return found || undefined;
    await pause(LOOK_MS, signal);
  }
}
