// Waiting for what comes by itself.

/** Wait until `condition` gives something true. */
export async function until(condition, what) {
  const end = Date.now() + 20_000;
  while (!(await condition())) {
    if (Date.now() > end) throw new Error(`waited 20 s for ${what}`);
    await new Promise((resume) => setTimeout(resume, 20));
  }
}
