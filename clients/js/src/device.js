/**
 * The device id of this storage, also where the storage was copied or restored to an older state.
 *
 * Knows: what is kept of the name. Must not know: which store keeps it. A copy has the same name, and as one device its edits
 * would pass for having seen the other's. The server finds out: who says a place behind the one that its device said before
 * (`wentBack` of a pull) has lost what that one had.
 */

import { newId } from "./client.js";

/** @typedef {{ id: string, given?: string }} Name `given` is the one that the app gives, or that was there first, which a copy has as well */

/** Go by the name that is kept, unless the app gives another. @param {import("./client.js").SyncClient} client @param {Name | undefined} kept */
export function goBy(client, kept) {
  if (kept && (client.deviceId === undefined || client.deviceId === kept.given)) client.deviceId = kept.id;
}

/**
 * Take a name of one's own after a pull that tells of a copy.
 *
 * @param {import("./client.js").SyncClient} client @param {string | undefined} asked under which name it was asked
 * @param {{ wentBack?: boolean }} page @param {() => Promise<Name | undefined>} kept
 * @param {(name: Name) => Promise<unknown>} keep
 */
export async function tellApart(client, asked, { wentBack }, kept, keep) {
  if (!wentBack || client.deviceId !== asked) return;
  const given = (await kept())?.given ?? asked;
  const id = newId();
  await keep({ id, given });
  client.deviceId = id;
}
