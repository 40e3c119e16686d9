/**
 * The outbox: adds edits, chooses which are sent next, and handles their outcomes.
 *
 * Knows: what an edit means for its row and for the edits after it. Must not know: the network, which database it is. Every
 * function works inside a transaction of its caller, and one at a time takes edits out.
 */

import { newId } from "./client.js";
import { editOf, keyOf, rebased } from "./edits.js";
import { ownFields } from "./operations.js";
import { ELSEWHERE } from "./resync.js";
import { BASES, layUnder, mourn, OUTBOX, REJECTED, show } from "./store.js";

/**
 * @typedef {import("./edits.js").Edit} Edit
 * @typedef {import("./edits.js").Row} Row
 * @typedef {import("./store.js").Transaction} Transaction
 * @typedef {{ id: string, readAt?: number, isNew?: boolean, change: (before: Row | undefined) => Row | undefined }} Wish
 * @typedef {{ edit: Edit, outcome: import("./operations.js").Outcome }} Settled
 * @typedef {{ table: string, from: string, to: string }} Renamed
 */

/**
 * Edit rows, and note each edit in the outbox.
 *
 * A row whose creation was refused, and that is put again, goes on from what was typed: repaired, it is created whole.
 * @param {Transaction} tx @param {string} table @param {Wish[]} wishes in their order @param {string} timestamp
 * @returns {Promise<(Row | undefined)[]>} the rows as they are then
 */
export async function edit(tx, table, wishes, timestamp) {
  const refused = await refusedCreates(tx);
  const befores = await standing(tx, table, wishes);
  const rows = new Map(befores);
  const edits = wishes.flatMap(({ id, readAt, change }) => {
    const before = rows.get(id);
    const after = change(before ?? refused.get(keyOf(table, id))?.data);
    const made = editOf(table, id, before, after, { opId: newId(), timestamp }, readAt);
    if (made) rows.set(id, after);
    return made ?? [];
  });
  const ids = [...new Set(edits.map(({ id }) => id))];
  await keepBases(tx, table, ids.flatMap((id) => befores.get(id) ?? []));
  const again = ids.flatMap((id) => refused.get(keyOf(table, id)) ?? []);
  await Promise.all([
    ...edits.map((made) => tx.put(OUTBOX, made)),
    ...ids.map((id) => show(tx, table, id, rows.get(id))),
    ...again.map(({ opId }) => tx.delete(REJECTED, opId)),
  ]);
  return wishes.map(({ id }) => rows.get(id));
}

/** @param {Transaction} tx @param {string} table @param {Wish[]} wishes @returns {Promise<Map<string, Row | undefined>>} */
async function standing(tx, table, wishes) {
  const ids = [...new Set(wishes.filter(({ isNew }) => !isNew).map(({ id }) => id))];
  const found = await Promise.all(ids.map((id) => tx.get(table, id)));
  return new Map(ids.map((id, place) => [id, found[place]]));
}

/** Keep rows as the server has them, where no edit waits on top of them already. @param {Transaction} tx @param {string} table @param {Row[]} befores */
async function keepBases(tx, table, befores) {
  const confirmed = befores.filter(({ version }) => version);
  const edits = await Promise.all(confirmed.map(({ id }) => tx.editsOf(keyOf(table, id))));
  const bases = confirmed.filter((_, place) => !edits[place].length);
  await Promise.all(bases.map((row) => tx.put(BASES, { key: keyOf(table, row.id), table, row })));
}

/** Give the creates that the server refused, by row. @param {Transaction} tx @returns {Promise<Map<string, Edit>>} */
async function refusedCreates(tx) {
  if (!(await tx.count(REJECTED))) return new Map();
  const creates = (await tx.all(REJECTED)).filter(({ operation }) => operation === "create");
  return new Map(creates.map((refused) => [refused.key, refused]));
}

/** The edits that wait, read once: who sends them reads on from where it was. */
export class Outbox {
  #last = 0;
  /** @type {Edit[]} */
  #edits = [];
  /** @type {Map<string, Edit[]>} */
  #byRow = new Map();

  /** Read what came since. @param {Transaction} tx */
  async load(tx) {
    const fresh = await tx.all(OUTBOX, this.#last);
    for (const edit of fresh) {
      this.#edits.push(edit);
      const row = this.#byRow.get(edit.key);
      if (row) row.push(edit);
      else this.#byRow.set(edit.key, [edit]);
      this.#last = edit.number;
    }
  }

  /** @param {string} key @returns {Edit[]} those of a row, in their order */
  of(key) {
    return this.#byRow.get(key) ?? [];
  }

  /**
   * Give the oldest edits that may be sent; first what is given back after a restore.
   *
   * What follows a create of the same row, or a row that is given back, is left for the next time: if the create is
   * refused, it must not make a part of a row, and what is given back becomes its base.
   * @param {number} most
   */
  sendable(most) {
    const created = new Set();
    const ready = this.#edits.slice(0, most).filter(({ key, operation, isReturned }) => {
      const isReady = !created.has(key);
      if (operation === "create" || isReturned) created.add(key);
      return isReady;
    });
    return [...ready.filter(({ isReturned }) => isReturned), ...ready.filter(({ isReturned }) => !isReturned)];
  }

  /**
   * Have the edits of a row follow it to the id that it has now; what was pulled under the old one is no base of theirs.
   *
   * @param {Transaction} tx @param {string} table @param {string} from @param {string} to @param {number} baseVersion
   */
  async follow(tx, table, from, to, baseVersion) {
    const moved = this.of(keyOf(table, from));
    const key = keyOf(table, to);
    for (const edit of moved) Object.assign(edit, { key, id: to, data: { ...edit.data, id: to }, baseVersion });
    this.#byRow.delete(keyOf(table, from));
    if (moved.length) this.#byRow.set(key, this.#edits.filter((edit) => edit.key === key));
    await Promise.all(moved.map((edit) => tx.put(OUTBOX, edit)));
  }

  /** Take edits out. @param {Transaction} tx @param {Edit[]} edits */
  async remove(tx, edits) {
    const numbers = edits.map(({ number }) => /** @type {number} */ (number)).sort((one, other) => one - other);
    const gone = new Set(numbers);
    this.#edits = this.#edits.filter(({ number }) => !gone.has(/** @type {number} */ (number)));
    for (const { key } of edits) this.#byRow.set(key, this.of(key).filter(({ number }) => !gone.has(/** @type {number} */ (number))));
    const [first, last] = [numbers[0], numbers[numbers.length - 1]];
    if (last - first + 1 === gone.size) await tx.deleteRange(OUTBOX, first, last);
    else await Promise.all(numbers.map((number) => tx.delete(OUTBOX, number)));
  }
}

/**
 * Take what became of edits: they leave the outbox, and each row shows what the server has, under the edits after them.
 *
 * @param {Transaction} tx @param {Outbox} outbox @param {Edit[]} edits @param {import("./operations.js").Outcome[]} outcomes
 * @returns {Promise<{ refused: Edit[], renamed: Renamed[] }>} those that were refused for good, each with its `error`, and
 *   the rows that the server has under other ids than they were sent with
 */
export async function settle(tx, outbox, edits, outcomes) {
  await outbox.load(tx);
  await outbox.remove(tx, edits);
  const hasBases = (await tx.count(BASES)) > 0;
  /** @type {Map<string, Settled[]>} */
  const byRow = new Map(edits.map(({ key }) => [key, []]));
  for (const [place, edit] of edits.entries()) byRow.get(edit.key)?.push({ edit, outcome: outcomes[place] });
  const rows = [...byRow.values()];
  const refused = (await Promise.all(rows.map((settled) => settleRow(tx, outbox, settled, hasBases)))).flat();
  const renamed = rows.flatMap((settled) => renamedBy(settled) ?? []);
  for (const { row, ...names } of renamed) await rename(tx, outbox, names, row); // One by one: two may be one row now.
  return { refused, renamed: renamed.map(({ row, ...names }) => names) };
}

/** Tell whether the server has the row of edits under another id than they named. @param {Settled[]} settled */
function renamedBy(settled) {
  const [{ edit: { table, id } }] = settled;
  const row = rowOf(settled);
  return row && row.id !== id ? { table, from: id, to: /** @type {string} */ (row.id), row } : undefined;
}

/** Give the row as the last answer has it. @param {Settled[]} settled @returns {Row | undefined} */
const rowOf = (settled) => settled.findLast(({ outcome }) => outcome.row)?.outcome.row ?? undefined;

/**
 * Have a row under the id that the server gave it, with the edits that wait; under the old one, only what was pulled of it.
 *
 * @param {Transaction} tx @param {Outbox} outbox @param {Renamed} names @param {Row} row as it was answered
 */
async function rename(tx, outbox, { table, from, to }, row) {
  const pulled = await tx.get(BASES, keyOf(table, from));
  const hasEdits = outbox.of(keyOf(table, to)).length > 0;
  const held = hasEdits ? (await tx.get(BASES, keyOf(table, to)))?.row : await tx.get(table, to);
  await outbox.follow(tx, table, from, to, row.version);
  await layUnder(tx, table, from, pulled?.row ?? null, []);
  await layUnder(tx, table, to, held?.version > row.version ? held : row, outbox.of(keyOf(table, to)));
}

/** @param {Transaction} tx @param {Outbox} outbox @param {Settled[]} settled the edits of one row @param {boolean} hasBases */
async function settleRow(tx, outbox, settled, hasBases) {
  const [{ edit: { table, id, key } }] = settled;
  const row = rowOf(settled);
  const kept = row || !hasBases ? undefined : await tx.get(BASES, key);
  const rejected = settled.filter(({ outcome }) => outcome.result.status === "rejected");
  const { refused, edits } = rejected.length ? await refuse(tx, outbox, rejected) : { refused: [], edits: outbox.of(key) };
  await base(tx, settled, edits);
  if (row?.is_deleted && row.version) await mourn(tx, table, [row]);
  if (!renamedBy(settled)) await layUnder(tx, table, id, row ?? kept?.row ?? null, edits, hasBases);
  return refused;
}

/**
 * Have the edits that saw a row which was given back go on from it, if it is the row now.
 *
 * @param {Transaction} tx @param {Settled[]} settled @param {Edit[]} waiting changed
 */
async function base(tx, settled, waiting) {
  const { status, version } = settled.find(({ edit }) => edit.isReturned)?.outcome.result ?? {};
  if (!version || (status !== "created" && status !== "updated")) return;
  const saw = waiting.filter(({ baseVersion }) => baseVersion === ELSEWHERE);
  await Promise.all(saw.map((edit) => tx.put(OUTBOX, Object.assign(edit, { baseVersion: version }))));
}

/**
 * Keep what was refused, with all that was typed. A create that was edited meanwhile is tried again as the row is now: it
 * may be the very repair.
 *
 * @param {Transaction} tx @param {Outbox} outbox @param {Settled[]} settled
 * @returns {Promise<{ refused: Edit[], edits: Edit[] }>} what is refused for good, and what waits now
 */
async function refuse(tx, outbox, settled) {
  const waiting = outbox.of(settled[0].edit.key);
  const create = waiting.length ? settled.findLast(({ edit }) => edit.operation === "create")?.edit : undefined;
  const refused = settled.filter(({ edit }) => edit !== create).map(({ edit, outcome }) => ({ ...edit, error: outcome.result.error }));
  await Promise.all(refused.map((edit) => tx.put(REJECTED, edit)));
  if (!create) return { refused, edits: waiting };
  const again = refolded(create, waiting);
  await outbox.remove(tx, waiting);
  if (again) await tx.put(OUTBOX, again);
  return { refused, edits: again ? [again] : [] };
}

/** @param {Edit} create @param {Edit[]} waiting @returns {Edit | undefined} nothing if the row was deleted again */
function refolded({ number, ...create }, waiting) {
  const row = rebased(null, [create, ...waiting]);
  if (!row) return undefined;
  const { is_deleted, ...data } = ownFields(row);
  return { ...create, data, opId: newId(), timestamp: waiting[waiting.length - 1].timestamp };
}
