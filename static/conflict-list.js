// The conflicts of one app on the page: both sides field by field, and a button for each side.

import { other } from "./device.js";
import { element, showAnew } from "./dom.js";
import { fieldName, valueText } from "./words.js";

/** `act(conflict, whose)` decides; `nameOf(deviceId)` names the other side. */
export class ConflictList {
  constructor(root, act) {
    this.root = root;
    this.act = act;
  }

  /** Show what is new; what is shown already stays. */
  show(device, names, nameOf) {
    const about = [device.number, device.conflicts, device.isOn, device.conflicts.map(({ id }) => names.get(id))];
    const hadFocus = this.root.contains(document.activeElement);
    showAnew(this.root, about, () => device.conflicts.map((conflict) => this.#card(device, conflict, names, nameOf)));
    if (hadFocus && !this.root.contains(document.activeElement)) this.root.closest(".app").querySelector("button").focus();
  }

  clear() {
    showAnew(this.root, [], () => []);
  }

  #card(device, conflict, names, nameOf) {
    const own = device.sideIn(conflict);
    const theirs = nameOf(conflict[other(own)].deviceId);
    const title = `Conflict: ${names.get(conflict.id) || "a row"}`;
    const explanation = `This app and ${theirs} changed the same. The marked side stands for now.`;
    const card = element("article", { className: "conflict" }, element("h3", {}, title), element("p", { className: "muted" }, explanation));
    card.setAttribute("aria-label", title);
    card.append(table(conflict, own, theirs), this.#buttons(device, conflict));
    return card;
  }

  #buttons(device, conflict) {
    const buttons = ["mine", "theirs"].map((whose) => {
      const onclick = () => this.act(conflict, whose);
      return element("button", { type: "button", className: "small", disabled: !device.isOn, onclick }, `Keep ${whose}`);
    });
    const hint = device.isOn ? [] : [element("p", { className: "muted" }, "To be decided online.")];
    return element("div", { className: "actions" }, ...buttons, ...hint);
  }
}

function table({ fields }, own, theirs) {
  const head = ["Field", "Before", "Mine", theirs].map((text) => element("th", { scope: "col" }, text));
  const rows = Object.entries(fields).map(([name, field]) => line(name, field, own));
  return element("table", {}, element("thead", {}, element("tr", {}, ...head)), element("tbody", {}, ...rows));
}

function line(name, field, own) {
  const cells = ["base", own, other(own)].map((side) => {
    const stands = field.winner === side ? [element("span", { className: "stands" }, "stands")] : [];
    return element("td", {}, valueText(name, field[side]), ...stands);
  });
  return element("tr", {}, element("th", { scope: "row" }, fieldName(name)), ...cells);
}
