/**
 * SHA-256, at once and anywhere. Source: FIPS 180-4.
 *
 * Must not know: what is hashed. `crypto.subtle` is missing in pages that came over plain http, which a self-hosted
 * server in a local network often serves, and costs a promise for each of 10,000 rows.
 */

/** First 32 bits of the fractional parts of the square or cube roots of the first primes. @param {number} count @param {number} root */
function fractions(count, root) {
  const found = [];
  for (let candidate = 2; found.length < count; candidate++) {
    let isPrime = true;
    for (let factor = 2; factor * factor <= candidate; factor++) if (candidate % factor === 0) isPrime = false;
    if (isPrime) found.push(((candidate ** (1 / root)) % 1) * 2 ** 32);
  }
  return Uint32Array.from(found);
}

const START = fractions(8, 2);
const ROUNDS = fractions(64, 3);

/** @param {number} word @param {number} by */
const turned = (word, by) => (word >>> by) | (word << (32 - by));

/** @param {string} text @returns {Uint8Array} padded to whole blocks */
function padded(text) {
  const bytes = new TextEncoder().encode(text);
  const whole = new Uint8Array((((bytes.length + 8) >> 6) + 1) << 6);
  whole.set(bytes);
  whole[bytes.length] = 0x80;
  new DataView(whole.buffer).setUint32(whole.length - 4, bytes.length * 8);
  return whole;
}

/** @param {DataView} blocks @param {number} at @param {Uint32Array} words filled in */
function schedule(blocks, at, words) {
  for (let round = 0; round < 16; round++) words[round] = blocks.getUint32(at + round * 4);
  for (let round = 16; round < 64; round++) {
    const [early, late] = [words[round - 15], words[round - 2]];
    const small = turned(early, 7) ^ turned(early, 18) ^ (early >>> 3);
    const large = turned(late, 17) ^ turned(late, 19) ^ (late >>> 10);
    words[round] = words[round - 16] + small + words[round - 7] + large;
  }
}

/** @param {Uint32Array} state changed @param {Uint32Array} words */
function compress(state, words) {
  let [a, b, c, d, e, f, g, h] = state;
  for (let round = 0; round < 64; round++) {
    const choice = (e & f) ^ (~e & g);
    const one = (h + (turned(e, 6) ^ turned(e, 11) ^ turned(e, 25)) + choice + ROUNDS[round] + words[round]) | 0;
    const two = ((turned(a, 2) ^ turned(a, 13) ^ turned(a, 22)) + ((a & b) ^ (a & c) ^ (b & c))) | 0;
    [h, g, f, e, d, c, b, a] = [g, f, e, (d + one) | 0, c, b, a, (one + two) | 0];
  }
  [a, b, c, d, e, f, g, h].forEach((word, place) => (state[place] += word));
}

/** Hash a text. @param {string} text @returns {string} 64 hexadecimal digits */
export function sha256(text) {
  const bytes = padded(text);
  const blocks = new DataView(bytes.buffer);
  const state = START.slice();
  const words = new Uint32Array(64);
  for (let at = 0; at < bytes.length; at += 64) {
    schedule(blocks, at, words);
    compress(state, words);
  }
  return [...state].map((word) => word.toString(16).padStart(8, "0")).join("");
}
