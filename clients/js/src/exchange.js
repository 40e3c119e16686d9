/**
 * One exchange of a replica with the server: push edits, pull rows, store each step before the next.
 *
 * Knows: in which order things are sent and fetched, whose rows these are, how far each table got. Must not know: when a
 * round is due, who listens, which database keeps it.
 */

import { beginAnew, endAnew, takeAnew, underWay } from "./anew.js";
import { newId } from "./client.js";
import { goBy, tellApart } from "./device.js";
import { operationOf } from "./edits.js";
import { ResyncRequired, SyncError, takesNoChanges } from "./errors.js";
import { pushOperations } from "./operations.js";
import { Outbox, settle } from "./outbox.js";
import { BASES, META, OUTBOX, place, take } from "./store.js";

/**
 * @typedef {import("./edits.js").Row} Row
 * @typedef {{ changed: (table?: string) => void, refused: (edit: import("./edits.js").Edit) => void,
 *   renamed: (names: import("./outbox.js").Renamed) => void, conflicted: (outcome: import("./operations.js").Outcome) => void }} Hear
 * @typedef {{ name: "filling", tables: string[], cursor: string | null }} Filling a first pull of tables that came later
 */

const SLICE_EDITS = 1000;

export class Exchange {
  /** Whether a pull has told, since this was opened, that no copy of it went on under its name. */
  #isOriginal = false;

  /**
   * @param {import("./client.js").SyncClient} client @param {import("./store.js").Store} store @param {string[]} tables
   * @param {Hear} hear
   */
  constructor(client, store, tables, hear) {
    this.client = client;
    this.store = store;
    this.tables = tables;
    this.hear = hear;
  }

  /** Send and fetch until both sides have nothing new. */
  async round() {
    await this.#settleAccount();
    try {
      await this.#forth();
    } catch (error) {
      if (!(error instanceof ResyncRequired)) throw error;
      const { cursor } = await this.#place();
      await this.#write((tx) => beginAnew(tx, cursor, this.tables));
      await this.#forth();
    }
    await this.#push((await this.#place()).cursor);
  }

  async #forth() {
    await this.#anew();
    await this.#fill();
    let { cursor } = await this.#place();
    if (cursor !== null && !this.#isOriginal && (await this.#hasEdits())) cursor = await this.#pull(cursor);
    if (cursor !== null) await this.#pushOrPull(cursor);
    await this.#pull(cursor);
  }

  /** Push; what others changed is fetched also while nothing is taken from here. @param {string} cursor */
  async #pushOrPull(cursor) {
    try {
      await this.#push(cursor);
    } catch (error) {
      if (takesNoChanges(error)) await this.#pull(cursor);
      throw error;
    }
  }

  /** Have a device ID of the database's own, so that the server knows its edits from others', and know whose it is. */
  async identify() {
    return this.#write(async (tx) => {
      const [device, account] = await Promise.all([tx.get(META, "device"), tx.get(META, "account")]);
      goBy(this.client, device);
      this.client.deviceId ??= newId();
      this.client.tenantId ??= account?.id;
      if (!device) await tx.put(META, { name: "device", id: this.client.deviceId });
      return /** @type {string | undefined} */ (account?.id);
    });
  }

  /** Stop where somebody else is logged in than the one whose rows and edits these are. */
  async #settleAccount() {
    const kept = await this.identify();
    const id = await this.client.account(kept);
    if (!kept && id) await this.#write((tx) => tx.put(META, { name: "account", id }));
  }

  /** @param {string | null} cursor */
  async #push(cursor) {
    const outbox = new Outbox();
    for (let waiting = await this.#waiting(outbox); waiting.length; waiting = await this.#waiting(outbox)) {
      const edits = new Map(waiting.map(({ edit }) => [edit.opId, edit]));
      const operations = waiting.map(({ edit, base }) => operationOf(edit, base));
      await pushOperations(this.client, operations, {
        baseCursor: cursor,
        done: (sent, outcomes) => this.#settle(outbox, sent.map(({ opId }) => edits.get(opId)), outcomes),
      });
    }
  }

  /** Give the edits that are sent next, an update with what it is based on. @param {Outbox} outbox */
  #waiting(outbox) {
    return this.store.transaction("readonly", [], async (tx) => {
      await outbox.load(tx);
      const edits = outbox.sendable(SLICE_EDITS);
      return Promise.all(edits.map(async (edit) => ({ edit, base: edit.operation === "update" ? (await tx.get(BASES, edit.key))?.row : undefined })));
    });
  }

  /** @param {Outbox} outbox @param {any[]} edits @param {import("./operations.js").Outcome[]} outcomes */
  async #settle(outbox, edits, outcomes) {
    const { refused, renamed } = await this.#write((tx) => settle(tx, outbox, edits, outcomes));
    renamed.forEach(this.hear.renamed);
    refused.forEach(this.hear.refused);
    outcomes.filter(({ result }) => result.status === "conflict").forEach(this.hear.conflicted);
    this.hear.changed();
  }

  #hasEdits() {
    return this.store.transaction("readonly", [], async (tx) => (await tx.count(OUTBOX)) > 0);
  }

  /** Pull from a cursor to the end. @param {string | null} since @returns {Promise<string | null>} where that is */
  async #pull(since) {
    const asked = this.client.deviceId;
    let reached = since;
    for await (const page of this.client.pages({ cursor: since, tables: this.tables })) {
      await tellApart(this.client, asked, page, () => this.#kept("device"), (name) => this.#write((tx) => tx.put(META, { name: "device", ...name })));
      this.#isOriginal = true;
      await this.take(page.data, { cursor: page.cursor, tables: this.tables }, reached);
      reached = page.cursor;
    }
    return reached;
  }

  /** @param {string} name @returns {Promise<any>} */
  #kept(name) {
    return this.store.transaction("readonly", [], (tx) => tx.get(META, name));
  }

  /**
   * Keep rows and the place after them, together.
   *
   * @param {Record<string, Row[]>} data @param {import("./store.js").Place & { name?: string }} reached
   * @param {string | null} since where the database must be: one that was lost meanwhile, and made anew, is at no place
   */
  async take(data, reached, since) {
    await this.#write(async (tx) => {
      const { cursor = null } = (await tx.get(META, reached.name ?? "place")) ?? {};
      if (cursor !== since) throw new SyncError("The database on this device was lost meanwhile.", { code: "replica_failed" });
      for (const [table, rows] of Object.entries(data)) await take(tx, table, rows);
      await tx.put(META, { name: "place", ...reached });
    });
    for (const [table, rows] of Object.entries(data)) if (rows.length) this.hear.changed(table);
  }

  /** Fetch from the start what the tables hold that the app did not have before; the others go on from where they are. */
  async #fill() {
    const { cursor, tables = [] } = await this.#place();
    const added = this.tables.filter((table) => !tables.includes(table));
    if (cursor === null || !added.length) return;
    const kept = /** @type {Filling | undefined} */ (await this.#kept("filling"));
    const since = kept && `${kept.tables}` === `${added}` ? kept.cursor : null;
    if (since === null) await this.#write((tx) => tx.delete(META, "filling"));
    let reached = since;
    for await (const page of this.client.pages({ cursor: since, tables: added, isAnonymous: true })) {
      await this.take(page.data, { name: "filling", cursor: page.cursor, tables: added }, reached);
      reached = page.cursor;
    }
    await this.take({}, { cursor, tables: this.tables }, cursor);
    await this.#write((tx) => tx.delete(META, "filling"));
  }

  /** Go on with what began after a restore, a purge or a long absence, if it did. */
  async #anew() {
    for (let anew = await this.#underWay(); anew; anew = await this.#underWay()) {
      const page = await this.client.pull({ cursor: anew.cursor, tables: anew.tables });
      const { data, cursor, hasMore } = page;
      await this.#write(async (tx) => {
        if (!(await underWay(tx))) return; // The database was lost meanwhile, and begins with nothing.
        await takeAnew(tx, /** @type {any} */ (anew), data, cursor);
        if (!hasMore) await endAnew(tx, { .../** @type {any} */ (anew), cursor });
      });
      this.hear.changed();
    }
  }

  #underWay() {
    return this.store.transaction("readonly", [], underWay);
  }

  #place() {
    return this.store.transaction("readonly", [], place);
  }

  /** @template T @param {(tx: import("./store.js").Transaction) => Promise<T>} work @returns {Promise<T>} */
  #write(work) {
    return this.store.transaction("readwrite", this.tables, work);
  }
}
