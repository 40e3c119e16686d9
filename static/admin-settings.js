// The settings in force, with where each is from. Of secrets the server sends their size alone.

import { get } from "./admin-api.js";
import { table } from "./admin-parts.js";
import { element } from "./dom.js";

export async function show(page) {
  const { settings } = await get("/api/settings");
  const place = element("div", {});
  const only = element("input", { id: "only", type: "checkbox" });
  const fill = () => {
    const shown = settings.filter(({ source }) => !only.checked || source !== "default");
    place.replaceChildren(table("Settings", ["Setting", "Value", "From"], shown.map(rowOf), "Everything is as by default."));
  };
  only.addEventListener("change", fill);
  page.append(
    element("h1", {}, "Settings"),
    element("p", { className: "muted" }, "As they apply now. They are read from the environment at the start; docs/settings.md says what each may be."),
    element("p", { className: "check" }, only, element("label", { htmlFor: "only" }, "Only those that were set")),
    place,
  );
  fill();
}

function rowOf({ name, value, source, about }) {
  const named = element("th", { scope: "row" }, element("code", {}, name), element("small", { className: "muted block" }, about));
  return [named, value === "" ? element("span", { className: "muted" }, "none") : element("code", {}, value), source];
}
