// A page of React on TanStack DB: a row that is inserted is shown, and is the server's when the title says so.
import { createCollection, useLiveQuery } from "@tanstack/react-db";
import { createElement } from "react";
import { createRoot } from "react-dom/client";
import { newId, SyncClient } from "syncapp-client";
import { syncappCollectionOptions } from "syncapp-client/tanstack-db";

const [url, token] = decodeURIComponent(location.hash.slice(1)).split(" ");
const id = newId();
const users = createCollection(syncappCollectionOptions(new SyncClient({ url, token }), { table: "end_user" }));

function Users() {
  const { data } = useLiveQuery((query) => query.from({ users }));
  return createElement("ul", null, data.map((row) => createElement("li", { key: row.id, id: `row-${row.id}` }, row.name)));
}

createRoot(document.body.appendChild(document.createElement("main"))).render(createElement(Users));
try {
  await users.preload();
  await users.insert({ id, name: "Asha" }).isPersisted.promise;
  await new Promise((resolve) => setTimeout(resolve));
  document.title = document.getElementById(`row-${id}`)?.textContent === "Asha" ? "exchanged" : "the row is not shown";
} catch (error) {
  document.title = String(error);
}
