// One app as a device: a replica of its own, a network of its own, and the conflicts it is part of. It runs on our
// JavaScript client, and knows nothing of the page.
//
// The replica is in IndexedDB under the server, the tenant and the app's number. So it outlives the page, no other
// account meets it, and all tabs show the same three devices: one tab syncs a device and posts its state to the others,
// and its switch is one for all tabs, kept beside its rows.

import { digestOf, SignedOut, SyncClient, SyncError, Unreachable } from "/static/client/index.js";
import { openIndexedDB } from "/static/client/indexeddb.js";
import { Replica } from "/static/client/replica.js";
import { META, place } from "/static/client/store.js";
import { Network } from "./network.js";
import { coalesced } from "./pace.js";

export const TABLE = "end_user";

const SWITCH = "page-switch";
const LEFT_ROWS = "page-demonstration";
const CONFLICTS_PATH = "/api/client/sync/conflicts";

export class Device extends EventTarget {
  // --- what it knows, for the page to show; "change" means that some of it is new ---
  rows = [];
  waiting = [];
  rejected = [];
  conflicts = [];
  digest = digestOf([]);
  link = "connecting";
  sync = "idle";
  problem = "";
  isSignedOut = false;
  deviceId = undefined;

  #isClosed = false;
  #isLeading = false;
  #areConflictsStale = true;

  /** Open, or make, the device `number` of a tenant; `session` has `server`, `tenantId` and `tokens`. */
  static async open(session, number) {
    const name = databaseName(session, number);
    const store = await openIndexedDB(name, [TABLE]);
    const kept = await store.transaction("readonly", [], (tx) => tx.get(META, SWITCH));
    const device = new Device(session, number, store, kept?.isOn ?? true);
    await device.refresh();
    device.replica.start();
    return device;
  }

  constructor({ server, tenantId, tokens }, number, store, isOn) {
    super();
    this.number = number;
    this.store = store;
    this.network = new Network(isOn);
    const { fetch, io } = this.network;
    this.client = new SyncClient({ url: server, store: tokens, fetch, io });
    this.replica = new Replica(this.client, store, [TABLE]);
    this.#watchReplica();
    this.#openChannels(`syncapp-page ${server} ${tenantId}`);
  }

  get isOn() {
    return this.network.isOn;
  }

  close() {
    this.#isClosed = true;
    this.network.set(false);
    this.replica.close();
    this.tabs.close();
    this.siblings.close();
  }

  // --- what a person does, and the story too ---

  /** Connect its network, or cut it, in all tabs; it stays so after a reload. */
  async setOnline(isOn) {
    this.#switch(isOn);
    this.#post(this.tabs, { isOn });
    await this.store.transaction("readwrite", [], (tx) => tx.put(META, { name: SWITCH, isOn }));
  }

  save(fields) {
    return this.replica.put(TABLE, fields);
  }

  remove(id) {
    return this.replica.delete(TABLE, id);
  }

  dismiss(opId) {
    return this.replica.dismiss(opId).then(() => this.refresh());
  }

  /** Decide a conflict for "mine" or "theirs": the row gets the values of that side, whichever the row has now. */
  async resolve(conflict, whose) {
    const own = this.sideIn(conflict);
    const side = whose === "mine" ? own : other(own);
    const row = Object.fromEntries(Object.entries(conflict.fields).map(([name, field]) => [name, field[side]]));
    try {
      await this.client.call(`${CONFLICTS_PATH}/${conflict.conflictId}/resolve`, { body: { resolution: "row", row } });
    } finally {
      // Also after a failure: somebody may have decided before.
      this.#post(this.siblings, "resolved");
      this.lookForConflicts();
    }
  }

  /** Give the IDs of rows that the demonstration added and nobody has removed. */
  async leftRows() {
    const kept = await this.store.transaction("readonly", [], (tx) => tx.get(META, LEFT_ROWS));
    const there = new Set(this.rows.map(({ id }) => id));
    return (kept?.ids ?? []).filter((id) => there.has(id));
  }

  /** Remember a row of the demonstration, so that it can be removed, also after a reload. */
  async noteLeft(id) {
    await this.store.transaction("readwrite", [], async (tx) => {
      const kept = await tx.get(META, LEFT_ROWS);
      await tx.put(META, { name: LEFT_ROWS, ids: [...(kept?.ids ?? []), id] });
    });
  }

  // --- messages to other tabs and devices ---

  /** Tell on which side of a conflict this device is, if on any: "client" pushed, "server" was there before. */
  sideIn(conflict) {
    return ["client", "server"].find((side) => this.deviceId && conflict[side].deviceId === this.deviceId);
  }

  cursor() {
    return this.store.transaction("readonly", [], place).then(({ cursor }) => cursor);
  }

  /** Read what the replica holds again. */
  refresh = coalesced(async () => {
    const read = [this.replica.all(TABLE), this.replica.outbox(), this.replica.rejected()];
    const found = await Promise.all(read).catch((error) => this.#failed(error));
    if (!found || this.#isClosed) return;
    [this.rows, this.waiting, this.rejected] = found;
    this.digest = digestOf(this.rows);
    this.#changed();
  });

  /** Ask the server for the conflicts it is part of; without a network, when that is back. */
  lookForConflicts = coalesced(async () => {
    this.#areConflictsStale = true;
    if (!this.isOn || !this.deviceId) return;
    try {
      const { data } = await this.client.call(`${CONFLICTS_PATH}?limit=500`, { method: "GET" });
      this.#areConflictsStale = false;
      this.#learn({ conflicts: data.filter((conflict) => conflict.table === TABLE && this.sideIn(conflict)) });
    } catch (error) {
      if (!(error instanceof SyncError)) throw error;
    }
  });

  // --- events and messages ---

  #watchReplica() {
    this.replica.subscribe(() => this.refresh());
    this.#on("status", (status) => this.#synced(status));
    this.#on("live", (link) => this.#linked(link));
    this.#on("conflict", () => this.lookForConflicts());
    this.#on("rejected", () => this.refresh());
    this.#on("notification", ({ type }) => type === "conflict_detected" && this.lookForConflicts());
  }

  #on(name, handle) {
    this.replica.addEventListener(name, ({ detail }) => handle(detail));
  }

  #synced({ state, error }) {
    const isSignedOut = error instanceof SignedOut;
    const problem = error && !isSignedOut && !(error instanceof Unreachable) ? error.message : "";
    this.#learn({ sync: state, problem, isSignedOut, deviceId: this.client.deviceId });
    if (state === "idle" && this.#areConflictsStale) this.lookForConflicts();
  }

  #linked(link) {
    this.#isLeading = true;
    this.#learn({ link });
    if (link === "live") this.lookForConflicts();
  }

  /** Take what is new, and have the other tabs know it. */
  #learn(facts) {
    Object.assign(this, facts);
    this.#post(this.tabs, { facts });
    this.#changed();
  }

  #post(channel, message) {
    if (!this.#isClosed) channel.postMessage(message);
  }

  #switch(isOn) {
    this.network.set(isOn);
    if (isOn) this.replica.wake();
    this.#changed();
  }

  #openChannels(family) {
    this.tabs = new BroadcastChannel(`${family} ${this.number}`);
    this.tabs.onmessage = ({ data }) => this.#receiveTab(data);
    this.#post(this.tabs, { isNew: true });
    this.siblings = new BroadcastChannel(family);
    this.siblings.onmessage = ({ data }) => this.#receiveSibling(data);
  }

  /** A message of another tab about this device. */
  #receiveTab({ isOn, facts, isNew }) {
    if (isOn !== undefined) this.#switch(isOn);
    if (isNew && this.#isLeading) this.#learn(this.#facts());
    if (!facts) return;
    Object.assign(this, facts);
    this.client.deviceId ??= facts.deviceId;
    this.#changed();
  }

  #facts() {
    const { link, sync, problem, isSignedOut, deviceId, conflicts } = this;
    return { link, sync, problem, isSignedOut, deviceId, conflicts };
  }

  #receiveSibling(message) {
    if (message === "resolved") this.lookForConflicts();
    if (message === "forgotten") this.dispatchEvent(new Event("forgotten"));
  }

  /** Tell all tabs that the replicas are about to be removed. */
  postForgotten() {
    this.#post(this.siblings, "forgotten");
  }

  #failed(error) {
    if (!this.#isClosed) this.#learn({ problem: error.message });
  }

  #changed() {
    this.dispatchEvent(new Event("change"));
  }
}

export const other = (side) => ({ client: "server", server: "client" })[side];

/** Name the database of a device; another server or tenant has another. */
export function databaseName({ server, tenantId }, number) {
  return `syncapp-page ${server} ${tenantId} app-${number}`;
}
