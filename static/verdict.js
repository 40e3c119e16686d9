// The comparison at the top of the page: do the three devices have the same rows as the server? The server is asked over the
// page's own network, so that no switch of an app is in the way.

import { SyncClient, SyncError } from "/static/client/index.js";
import { TABLE } from "./device.js";
import { byId, element, setText, showAnew } from "./dom.js";
import { coalesced } from "./pace.js";
import { count, verdictOf } from "./words.js";

export class Verdict {
  isEqual = false;
  #client;
  #devices = [];

  /** Watch devices; of an earlier session nothing is left. */
  watch({ server, tokens }, devices) {
    this.#client = new SyncClient({ url: server, store: tokens, patienceSeconds: 0 });
    this.#devices = devices;
    for (const device of devices) device.addEventListener("change", () => this.judge());
    this.#show({ isEqual: false, headline: "Opening three apps…", reasons: [] });
    this.judge();
  }

  leave() {
    this.#devices = [];
    this.#show({ isEqual: false, headline: "No account yet", reasons: ["Log in or register, and three apps open."] });
  }

  judge = coalesced(async () => {
    const devices = this.#devices;
    if (!devices.length) return;
    const theirs = await this.#ask(devices);
    if (devices === this.#devices && theirs !== undefined) this.#show(verdictOf(devices, theirs));
  });

  /** Ask for the server's digest, from the place of the device that is furthest, so that few rows come along. Gives
   * nothing while no device has a place yet, and null if nobody answers. */
  async #ask(devices) {
    try {
      const [furthest] = (await Promise.all(devices.map((device) => device.cursor()))).sort(newestFirst);
      if (furthest === null) return undefined;
      let page;
      for await (page of this.#client.pages({ cursor: furthest, tables: [TABLE], digest: true }));
      return page.digest[TABLE];
    } catch (error) {
      if (!(error instanceof SyncError || error.name === "InvalidStateError")) throw error;
      return null; // Also if the devices were closed meanwhile.
    }
  }

  #show({ isEqual, headline, reasons }) {
    this.isEqual = isEqual;
    byId("verdict").dataset.equal = String(isEqual);
    setText(byId("verdict-headline"), headline);
    const open = new Set(this.#devices.flatMap(({ conflicts }) => conflicts.map(({ conflictId }) => conflictId))).size;
    const lines = open ? [...reasons, `${count(open, "conflict")} to decide.`] : reasons;
    showAnew(byId("verdict-reasons"), lines, () => lines.map((line) => element("li", {}, line)));
  }
}

/** Compare cursors of one database by the number they end with. */
function newestFirst(one, another) {
  return placeIn(another) - placeIn(one);
}

const placeIn = (cursor) => Number(cursor?.split("-").at(-1) ?? -1);
