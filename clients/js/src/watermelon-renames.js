/**
 * Handles records whose rows have another id on the server than the one they were created with.
 *
 * Knows: where WatermelonDB keeps a value of ours, which of its records wait to be created. Must not know: the network, when
 * a sync is. Two devices can come to one id: until a creation is answered, the row of another device under its id is held
 * back, since WatermelonDB would make one record of both; and a deletion says by its `Unique_id` which of them is meant.
 */

/**
 * @typedef {Record<string, any>} Row
 * @typedef {import("./operations.js").Outgoing} Outgoing
 * @typedef {{ table: string, from: string, to?: string, version?: number }} Renamed `to` is missing while the creation waits
 * @typedef {{ table: string, id: string, Unique_id: string }} Sent a creation that was sent, and not answered as far as is known
 */

const RENAMED = "syncapp_renamed";
const SENT = "syncapp_sent";

export class Renames {
  /** @type {Renamed[]} */
  #kept = [];
  /** @type {Sent[]} */
  #sent = [];

  /** @param {any} database */
  constructor(database) {
    this.database = database;
  }

  /** Read what is kept, by this tab or another. */
  async load() {
    [this.#kept, this.#sent] = [await this.#read(RENAMED), await this.#read(SENT)];
  }

  /**
   * Take away, without a deletion, records whose rows the server has under other ids.
   *
   * @param {(table: string, id: string) => Promise<void>} destroy leaves records with edits that wait
   * @returns {Promise<{ tables: string[], done: () => Promise<void> }>} tables of which others may have rows under the old
   *   ids, that are to be pulled from the start; call `done` when that is kept
   */
  async letGo(destroy) {
    /** @type {Renamed[]} */
    const left = [];
    for (const one of this.#kept) if (await this.#isWaiting(one, destroy)) left.push(one);
    const tables = this.#kept.filter((one) => !left.includes(one)).map(({ table }) => table);
    return { tables: [...new Set(tables)], done: () => this.#keep(left) };
  }

  /** @param {Renamed} renamed @param {(table: string, id: string) => Promise<void>} destroy */
  async #isWaiting({ table, from, to }, destroy) {
    if ((await this.database.adapter.getDeletedRecords(table)).includes(from)) return true;
    if (to) await destroy(table, from);
    return (await this.#rawsOf(table)).some(({ id, _status }) => id === from && (to || _status === "created"));
  }

  /** Give rows without those of others whose ids records have that wait to be created. @param {string} table @param {Row[]} rows */
  async withoutTaken(table, rows) {
    const created = rows.some((row) => row.Unique_id) ? (await this.#rawsOf(table)).filter(({ _status }) => _status === "created") : [];
    const own = new Map([...this.#sent.filter((one) => one.table === table), ...created].map(({ id, Unique_id }) => [id, Unique_id]));
    const isTaken = (/** @type {Row} */ { id, Unique_id }) => Unique_id && own.get(id) && own.get(id) !== Unique_id;
    const taken = rows.filter(isTaken).map(({ id }) => ({ table, from: id }));
    const fresh = taken.filter(({ from }) => !this.#kept.some((one) => one.table === table && one.from === from));
    if (fresh.length) await this.#keep([...this.#kept, ...fresh]);
    return rows.filter((row) => !isTaken(row));
  }

  /**
   * Say of operations which rows they mean, whose creation may have been answered with another id.
   *
   * @param {Outgoing[]} operations @returns {Promise<Outgoing[]>} as they are to be sent
   */
  async followed(operations) {
    const created = operations.filter(({ operation, data }) => operation === "create" && data.Unique_id);
    const about = created.map(({ table, data: { id, Unique_id } }) => ({ table, id, Unique_id }));
    if (about.length) await this.#write(SENT, (this.#sent = [...this.#sent.filter(isOtherThan(about)), ...about]));
    return operations.map((one) => this.#followed(one));
  }

  /** @param {Outgoing} operation @returns {Outgoing} */
  #followed(operation) {
    const { table, data, whole } = operation;
    const renamed = this.#kept.find((one) => one.to && one.table === table && one.from === data.id);
    if (renamed) {
      const [id, baseVersion] = [renamed.to, renamed.version];
      return { ...operation, data: { ...data, id }, baseVersion, ...(whole && { whole: { ...whole, id } }) };
    }
    const sent = operation.operation === "delete" && this.#sent.find((one) => one.table === table && one.id === data.id);
    return sent ? { ...operation, data: { ...data, Unique_id: sent.Unique_id }, baseVersion: 0 } : operation;
  }

  /**
   * Keep which rows the server has under other ids than they were sent with.
   *
   * @param {Outgoing[]} operations all that was sent @param {import("./operations.js").Outcome[]} outcomes
   * @returns {Promise<{ table: string, from: string, to: string }[]>}
   */
  async note(operations, outcomes) {
    const fresh = operations.flatMap(({ table, operation, data: { id } }, place) => {
      const { row } = outcomes[place];
      return row && row.id !== id && operation !== "delete" ? [{ table, from: id, to: row.id, version: row.version }] : [];
    });
    const isOld = isOtherThan(fresh.map(({ table, from: id }) => ({ table, id })));
    if (fresh.length) await this.#keep([...this.#kept.filter(({ table, from: id }) => isOld({ table, id })), ...fresh]);
    if (this.#sent.length) await this.#write(SENT, (this.#sent = []));
    return fresh.map(({ version, ...names }) => names);
  }

  /** @param {string} table @returns {Promise<any[]>} */
  async #rawsOf(table) {
    return (await this.database.get(table).query().fetch()).map((/** @type {any} */ { _raw }) => _raw);
  }

  /** @param {Renamed[]} kept */
  async #keep(kept) {
    this.#kept = kept;
    await this.#write(RENAMED, kept);
  }

  /** @param {string} key @returns {Promise<any[]>} */
  async #read(key) {
    return JSON.parse((await this.database.adapter.getLocal(key)) || "[]");
  }

  /** @param {string} key @param {any[]} value */
  async #write(key, value) {
    await this.database.adapter.setLocal(key, JSON.stringify(value));
  }
}

/** @param {{ table: string, id: string }[]} others */
function isOtherThan(others) {
  const named = new Set(others.map(({ table, id }) => `${table}/${id}`));
  return (/** @type {{ table: string, id: string }} */ { table, id }) => !named.has(`${table}/${id}`);
}
