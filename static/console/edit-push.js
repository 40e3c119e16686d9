// Sends one edit of a row, and says what became of it. A push that nobody answered is sent again under its key, so that
// pressing a button twice does not do it twice.

import { newId, Unreachable } from "/static/client/index.js";
import { titleOf } from "./text.js";

export class EditPush {
  #unanswered = { text: "", key: "" };

  constructor(session, table) {
    this.session = session;
    this.table = table;
  }

  create(values) {
    return this.#send({ table: this.table, operation: "create", data: values }, (row) => `Added ${titleOf(row)}.`);
  }

  /** State the version that somebody saw, so that an edit made elsewhere since is merged, or is a conflict. */
  update({ id, version }, values) {
    const body = { table: this.table, operation: "update", data: { ...values, id }, baseVersion: version };
    return this.#send(body, (row) => `Saved ${titleOf(row)}.`);
  }

  delete({ id, version }) {
    const body = { table: this.table, operation: "delete", data: { id }, baseVersion: version };
    return this.#send(body, (row) => `Deleted ${titleOf(row)}.`);
  }

  bringBack({ id }) {
    return this.#send({ changes: { [this.table]: [{ id, is_deleted: 0 }] } }, (row) => `${titleOf(row)} is back.`);
  }

  async #send(body, said) {
    const idempotencyKey = this.#keyOf(JSON.stringify(body));
    const { data, results, conflicts } = await this.session.run((client) => client.push(body, { idempotencyKey })).catch((error) => {
      if (!(error instanceof Unreachable)) this.#unanswered.text = "";
      throw error;
    });
    this.#unanswered.text = "";
    return outcome(said(data[0]), results[0], conflicts);
  }

  #keyOf(text) {
    if (this.#unanswered.text !== text) this.#unanswered = { text, key: newId() };
    return this.#unanswered.key;
  }
}

function outcome(said, { status }, conflicts) {
  if (status === "merged") return `${said} What was changed elsewhere meanwhile is kept too.`;
  if (!conflicts.length) return said;
  const isOurs = Object.values(conflicts[0].fields).every(({ winner }) => winner === "client");
  const stands = isOurs ? "Your edit stands for now" : "The other edit stands for now";
  return `The same was changed elsewhere meanwhile. ${stands}; decide under Conflicts.`;
}
