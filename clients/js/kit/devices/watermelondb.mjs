/** WatermelonDB with `synchronize` on its LokiJS adapter, as a device of the suite. */

import { appSchema, Database, Model, tableSchema } from "@nozbe/watermelondb";
import LokiJSAdapter from "@nozbe/watermelondb/adapters/lokijs/index.js";
import { addColumns, createTable, schemaMigrations } from "@nozbe/watermelondb/Schema/migrations/index.js";
import { hasUnsyncedChanges, synchronize } from "@nozbe/watermelondb/sync/index.js";
import { watermelonSync } from "syncapp-client/watermelondb";
import { BaseDevice } from "./device.mjs";

export const features = ["conflicts", "merges", "returns", "clock", "states"];

const TEXTS = ["name", "firstName", "lastName", "email", "phone", "note", "status", "type", "title", "description", "date", "companyName", "client_user_id", "last_updated", "updatedAt", "phoneModel", "metadata", "Unique_id"];
const columns = [
  ...TEXTS.map((name) => ({ name, type: "string", isOptional: true })),
  { name: "version", type: "number", isOptional: true },
  { name: "active", type: "number", isOptional: true },
  { name: "updated_at", type: "number", isOptional: true },
];
const MIGRATIONS = schemaMigrations({
  migrations: [
    {
      toVersion: 2,
      steps: [
        addColumns({ table: "end_user", columns: [{ name: "note", type: "string", isOptional: true }] }),
        createTable({ name: "interactions", columns }),
      ],
    },
  ],
});
const JSON_COLUMNS = { end_user: ["phoneModel"], interactions: ["metadata"] };

export class Device extends BaseDevice {
  seen = [];
  rejected = [];

  async open(options) {
    const columnsOf = (table) => columns.filter(({ name }) => !options.lacks?.[table]?.includes(name));
    const tables = options.tables.map((name) => tableSchema({ name, columns: columnsOf(name) }));
    const schema = appSchema({ version: options.lacks ? 1 : 2, tables });
    const modelClasses = options.tables.map((name) => class extends Model { static table = name; });
    const LokiAdapter = LokiJSAdapter.default ?? LokiJSAdapter;
    const adapter = new LokiAdapter({ schema, migrations: MIGRATIONS, dbName: `kit-${options.folder}`, useWebWorker: false, useIncrementalIndexedDB: true });
    this.database = new Database({ adapter, modelClasses });
    this.syncOnce = watermelonSync(this.clientOf(options), {
      database: this.database,
      synchronize,
      json: JSON_COLUMNS,
      onConflict: (conflict) => this.seen.push({ table: conflict.table, id: conflict.id }),
      onRenamed: (names) => this.names.push(names),
      onRejected: (result) => this.rejected.push(result),
    });
  }

  /** What was typed is on its way to IndexedDB: LokiJS saves twice a second. */
  async replaced() {
    await new Promise((resume) => setTimeout(resume, 1500));
  }

  async find(table, id) {
    return (await this.database.get(table).query().fetch()).find((record) => record.id === id);
  }

  async put({ table, row: { id, ...fields } }) {
    const json = JSON_COLUMNS[table] ?? [];
    const set = (record) => {
      for (const [name, value] of Object.entries(fields)) {
        record._setRaw(name, json.includes(name) && value !== null ? JSON.stringify(value) : value);
      }
      record._setRaw("updated_at", Date.now());
    };
    await this.database.write(async () => {
      const found = await this.find(table, id);
      // WatermelonDB's own IDs are never used again; one of the suite's may be.
      await this.database.adapter.destroyDeletedRecords(table, found ? [] : [id]);
      if (found) await found.update(set);
      else await this.database.get(table).create((record) => { record._raw.id = id; set(record); });
    });
    return { id };
  }

  async delete({ table, rowId: id }) {
    await this.database.write(async () => {
      await (await this.find(table, id))?.markAsDeleted();
    });
  }

  async rows({ table }) {
    const json = JSON_COLUMNS[table] ?? [];
    const records = await this.database.get(table).query().fetch();
    return records.map(({ _raw: { _status, _changed, updated_at, ...raw } }) => {
      for (const name of json) if (raw[name]) raw[name] = JSON.parse(raw[name]);
      return raw;
    });
  }

  async pending() {
    return (await hasUnsyncedChanges({ database: this.database })) ? 1 : 0;
  }

  async sync() {
    await this.syncOnce();
    // What was refused stays as it was typed; this app shows it to nobody, and lets it go.
    for (const { table, id, error } of this.rejected.splice(0)) {
      console.error("rejected", table, id, error);
      const found = await this.find(table, id);
      if (found) await this.database.write(() => found.destroyPermanently());
    }
  }

  async conflicts() {
    return this.seen;
  }

  async close() {}
}
