/**
 * Measures how far this device's clock is off the server's, so that edits carry the right time.
 *
 * Knows: how an answer's time tells it. Must not know: what is edited, how a request is made. Of two edits of one field the
 * later one stays, so a device an hour slow would lose every time.
 */

/** A measurement counts for so long: the clock may be set meanwhile. */
const FRESH_MS = 10 * 60_000;

export class Clock {
  /** What must be added to the time here. */
  offsetMs = 0;
  /** @type {number | undefined} */
  #measuredAt;
  /** Whether the last measurement was better than a second, which is all that `Date` says. */
  #isExact = false;

  /** Tell whether it was measured lately, by this clock, and well enough to correct it. */
  get isMeasured() {
    return this.#isFresh && (this.#isExact || this.offsetMs === 0);
  }

  get #isFresh() {
    return this.#measuredAt !== undefined && Math.abs(Date.now() - this.#measuredAt) < FRESH_MS;
  }

  /**
   * Learn from a time that the server said between two moments here.
   *
   * A clock that may be right is taken as right: what is not known better than that must not be made worse.
   * @param {string | null | undefined} told @param {number} beganAt @param {number} endedAt @param {number} [roundedMs] by
   *   how much the time may be rounded down: a second in the header `Date`
   */
  hear(told, beganAt, endedAt, roundedMs = 0) {
    const time = Date.parse(told ?? "");
    if (Number.isNaN(time) || endedAt < beganAt) return;
    const [least, most] = [time - endedAt, time + roundedMs - beganAt];
    const mayBe = (/** @type {number} */ offsetMs) => least <= offsetMs && offsetMs <= most;
    if (roundedMs && this.isMeasured && !mayBe(0) && mayBe(this.offsetMs)) return; // It is known better.
    this.offsetMs = mayBe(0) ? 0 : Math.round((least + most) / 2);
    this.#isExact = !roundedMs;
    this.#measuredAt = endedAt;
  }

  /** Give a moment that was noted here as the server's clock would have said it. @param {string} noted */
  corrected(noted) {
    const time = Date.parse(noted);
    return Number.isNaN(time) || !this.offsetMs ? noted : new Date(time + this.offsetMs).toISOString();
  }
}
