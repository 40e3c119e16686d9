/** The replica in plain IndexedDB, as a device of the suite. */

import { openIndexedDB } from "syncapp-client/indexeddb";
import { Replica } from "syncapp-client/replica";
import { ReplicaDevice } from "./replica.mjs";

export const features = ["live", "conflicts", "instances", "merges", "returns", "clock"];

export class Device extends ReplicaDevice {
  async open(options) {
    const store = await openIndexedDB(`kit-${options.folder}`, options.tables);
    this.use(new Replica(this.clientOf(options), store, options.tables));
  }
}
