/**
 * How much is asked for, or sent, at once: less where the line is slow, more where it is not.
 *
 * Knows: how long the last ones took. Must not know: of what it is a portion.
 */

/** A portion that took less may grow, one that took more shrinks. */
const [SHORT_MS, LONG_MS] = [4000, 20_000];

export class Portion {
  /** @param {number} most @param {number} least */
  constructor(most, least) {
    this.most = most;
    this.least = least;
    this.size = most;
  }

  /** Take less the next time. @param {number} taken what was too much @returns {boolean} false if it was the least already */
  shrink(taken) {
    this.size = Math.max(this.least, Math.min(this.size, taken) >> 2);
    return taken > this.least;
  }

  /** Learn from one that came through. @param {number} taken @param {number} tookMs @param {boolean} isAll there was no more to take */
  took(taken, tookMs, isAll) {
    if (tookMs > LONG_MS) this.shrink(taken);
    else if (tookMs < SHORT_MS && !isAll && taken === this.size) this.size = Math.min(this.most, this.size * 2);
  }
}
