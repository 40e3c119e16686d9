// The list of tenants: searched, sorted and paged by the server. What is chosen is in the address, so that it can be kept.

import { get } from "./admin-api.js";
import { bytes, number, shownTime, stateTag, table, tenantLink } from "./admin-parts.js";
import { element, say, setText } from "./dom.js";

const TYPING_MS = 250;
const ORDERS = {
  email: "Address", name: "Name", created: "Registered first", size: "Size", rows: "Rows", devices: "Devices", seen: "Seen longest ago",
};

export async function show(page) {
  const query = new URLSearchParams(location.search);
  const search = element("input", { id: "search", type: "search", value: query.get("search") ?? "", autocomplete: "off", spellcheck: false });
  const sort = element("select", { id: "sort" }, ...Object.entries(ORDERS).map(([value, words]) => element("option", { value }, words)));
  sort.value = ORDERS[query.get("sort")] ? query.get("sort") : "email";
  const list = new List(element("div", {}), () => ({ search: search.value.trim(), sort: sort.value }), Number(query.get("page")) || 1);
  page.append(
    element("h1", {}, "Tenants"),
    element("form", { className: "card filters", role: "search", onsubmit: (event) => event.preventDefault() },
      field("Search", search, "In name, address, company and ID"), field("Order", sort)),
    list.element,
  );
  let typing;
  search.addEventListener("input", () => {
    clearTimeout(typing);
    typing = setTimeout(() => list.go(1), TYPING_MS);
  });
  sort.addEventListener("change", () => list.go(1));
  await list.go(list.page);
}

function field(label, input, hint) {
  const made = element("div", { className: "field" }, element("label", { htmlFor: input.id }, label), input);
  if (hint) made.append(element("small", { className: "muted" }, hint));
  return made;
}

class List {
  constructor(place, asked, page) {
    Object.assign(this, { place, asked, page, latest: 0 });
    this.status = element("p", { className: "message muted", role: "status" });
    this.element = element("section", { ariaLabel: "Tenants" }, this.status, place);
  }

  /** Show a page; an answer that a later one has overtaken is left out. */
  async go(page) {
    const number = ++this.latest;
    try {
      const found = await get("/api/tenants", { ...this.asked(), page });
      if (number !== this.latest) return;
      this.page = page;
      this.#keep();
      say(this.status, told(found));
      this.place.replaceChildren(rowsOf(found.tenants), this.#pager(found));
    } catch (error) {
      say(this.status, error.message, true);
    }
  }

  #keep() {
    const { search, sort } = this.asked();
    const kept = Object.entries({ search, sort: sort === "email" ? "" : sort, page: this.page > 1 ? this.page : "" });
    const text = new URLSearchParams(kept.filter(([, value]) => value !== "")).toString();
    history.replaceState(null, "", text ? `?${text}` : location.pathname);
  }

  #pager({ page, pages }) {
    const button = (words, to) => {
      const made = element("button", { type: "button", disabled: to < 1 || to > pages }, words);
      made.addEventListener("click", async () => {
        await this.go(to);
        this.place.querySelector("button:not(:disabled)")?.focus();
      });
      return made;
    };
    const where = element("span", { className: "muted" }, `Page ${page.toLocaleString("en")} of ${pages.toLocaleString("en")}`);
    const pager = element("nav", { className: "pager", ariaLabel: "Pages of tenants" }, button("Previous", page - 1), where, button("Next", page + 1));
    pager.hidden = pages < 2;
    return pager;
  }
}

function told({ found, all, measured }) {
  const count = found === all ? `${all.toLocaleString("en")} tenants.` : `${found.toLocaleString("en")} of ${all.toLocaleString("en")} tenants.`;
  if (measured.tenants >= all) return `${count} Sizes are at most ${Math.ceil(measured.oldestSeconds / 60)} min old; those shown here are new.`;
  return `${count} ${measured.tenants.toLocaleString("en")} are measured so far, in the background; those shown here are new.`;
}

function rowsOf(tenants) {
  const rows = tenants.map((one) => [
    element("th", { scope: "row" }, tenantLink(one.id, one.email), element("small", { className: "muted block" }, one.companyName || one.name)),
    stateTag(one),
    number(one.rows), number(one.bytes, bytes(one.bytes)), number(one.devices), number(one.openConflicts),
    shownTime(one.lastSeenAt),
  ]);
  return table("Tenants", ["Customer", "State", "Rows", "Size", "Devices", "Conflicts", "Last seen"], rows, "Nobody has this in name, address, company or ID.");
}
