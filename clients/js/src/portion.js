/**
 * Decides how much to request or send at once: less on a slow network, more on a fast one.
 *
 * Knows: how the last ones went. Must not know: of what it is a portion. What did not get through costs a whole time limit;
 * so it is not tried again before many smaller ones have come, and then at twice the size.
 */

/** A portion that took less may grow, one that took more shrinks. */
const [SHORT_MS, LONG_MS] = [4000, 20_000];
const BEFORE_MORE = 16;

export class Portion {
  /** What has got through, or is below what has not. */
  #ceiling;
  #cameAtCeiling = 0;

  /** @param {number} most @param {number} least */
  constructor(most, least) {
    this.most = most;
    this.least = least;
    this.size = this.#ceiling = most;
  }

  /** Take less the next time. @param {number} taken what was too much @returns {boolean} false if it was the least already */
  shrink(taken) {
    this.#ceiling = Math.max(this.least, Math.min(this.#ceiling, taken >> 1)); // Others may be under way that were larger.
    this.size = Math.max(this.least, Math.min(this.size, taken) >> 2);
    this.#cameAtCeiling = 0;
    return taken > this.least;
  }

  /** Learn from one that came through. @param {number} taken @param {number} tookMs @param {boolean} isAll there was no more to take */
  took(taken, tookMs, isAll) {
    if (tookMs > LONG_MS) this.shrink(taken);
    else if (tookMs < SHORT_MS && !isAll && taken === this.size) this.#grow();
  }

  #grow() {
    if (this.size === this.#ceiling && ++this.#cameAtCeiling === BEFORE_MORE) {
      this.#ceiling = Math.min(this.most, this.#ceiling * 2);
      this.#cameAtCeiling = 0;
    }
    this.size = Math.min(this.#ceiling, this.size * 2);
  }
}
