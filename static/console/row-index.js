// The rows of one table: searched, sorted, paged. It runs in a worker, so that a hundred thousand rows don't hold up the page;
// it knows neither network nor page.

const SERVERS = new Set(["sync_status", "version", "server_synced", "is_deleted", "createdAt", "updatedAt", "last_updated", "device_id"]);
const compareTexts = new Intl.Collator(undefined, { numeric: true, sensitivity: "base" }).compare;

export class RowIndex {
  #rows = new Map(); // By ID, in the order of their latest change.
  #texts = new Map();
  #used = new Set();
  #deleted = 0;
  #sorted = { key: "", rows: [] };

  /** Keep rows in their order; one that is known moves to the end. */
  take(rows) {
    for (const row of rows) {
      this.#deleted += (row.is_deleted ? 1 : 0) - (this.#rows.get(row.id)?.is_deleted ? 1 : 0);
      this.#rows.delete(row.id);
      this.#rows.set(row.id, row);
      this.#texts.set(row.id, textOf(row));
      for (const name in row) if (row[name] !== null) this.#used.add(name);
    }
    this.#sorted.key = "";
    return this.#rows.size;
  }

  clear() {
    this.#rows.clear();
    this.#texts.clear();
    this.#used.clear();
    this.#deleted = 0;
    this.#sorted.key = "";
  }

  get(id) {
    return this.#rows.get(id) ?? null;
  }

  /**
   * Give one page: `words` must all be in a row's values, `isDeleted` says which rows, `sort` is a column or "" for the
   * latest change. It tells how many rows there are on all pages, and which columns any row has a value in.
   */
  page({ words, isDeleted, sort, isDescending, from, count }) {
    const sorted = this.#ordered(sort, isDescending);
    const wanted = words.map((word) => word.toLowerCase());
    const found = sorted.filter((row) => Boolean(row.is_deleted) === isDeleted && this.#has(row.id, wanted));
    const start = Math.min(from, Math.max(0, found.length - 1) - (Math.max(0, found.length - 1) % count));
    const numbers = { total: found.length, live: this.#rows.size - this.#deleted, deleted: this.#deleted };
    return { rows: found.slice(start, start + count), from: start, used: [...this.#used], ...numbers };
  }

  #has(id, words) {
    if (!words.length) return true;
    const text = this.#texts.get(id);
    return words.every((word) => text.includes(word));
  }

  /** Sort all rows once; typing and paging go on with that. */
  #ordered(column, isDescending) {
    const key = `${column} ${isDescending}`;
    if (this.#sorted.key !== key) this.#sorted = { key, rows: sortedBy([...this.#rows.values()], column, isDescending) };
    return this.#sorted.rows;
  }
}

function sortedBy(rows, column, isDescending) {
  if (column) rows.sort((one, another) => compared(one[column], another[column], isDescending ? -1 : 1));
  else if (isDescending) rows.reverse();
  return rows;
}

/** Compare two values; what is empty comes last either way. */
function compared(one, another, sign) {
  const [isNone, isOtherNone] = [one ?? "", another ?? ""].map((value) => value === "");
  if (isNone || isOtherNone) return isNone - isOtherNone;
  if (typeof one === "number" && typeof another === "number") return sign * (one - another);
  return sign * compareTexts(plain(one), plain(another));
}

function textOf(row) {
  const values = [];
  for (const name in row) if (row[name] !== null && !SERVERS.has(name)) values.push(plain(row[name]));
  return values.join("\n").toLowerCase();
}

const plain = (value) => (typeof value === "object" ? JSON.stringify(value) : String(value));
