// One app on the page: its switch, its state, its queue, its rows and its conflicts. What a person does here is one call
// of the device; what the device reports is shown.

import { ConflictList } from "./conflict-list.js";
import { element, setText, showAnew, whileBusy } from "./dom.js";
import { RowList } from "./row-list.js";
import { editText, stateOf, waitingText } from "./words.js";

const CONTROLS = ".switch, .create button";
const MOST_QUEUED = 20;

export class AppView {
  #names = new Map(); // By ID, also of rows that are gone: conflicts and refusals speak of them.

  /** `nameOf(deviceId)` names another device. */
  constructor(root, nameOf) {
    this.root = root;
    this.nameOf = nameOf;
    this.find = (selector) => root.querySelector(selector);
    const act = { update: (fields) => this.#do((device) => device.save(fields)), remove: (id) => this.#do((device) => device.remove(id)) };
    this.list = new RowList(this.find(".rows"), this.find(".more"), act);
    this.conflicts = new ConflictList(this.find(".conflicts"), (conflict, whose) => this.#do((device) => device.resolve(conflict, whose)));
    this.find(".switch").addEventListener("click", () => this.#do((device) => device.setOnline(!device.isOn)));
    this.find(".create").addEventListener("submit", (event) => this.#create(event));
  }

  /** Show a device from now on, and nothing of the one before. */
  attach(device) {
    this.device = device;
    this.#names.clear();
    this.list.clear();
    this.find(".create").reset();
    this.#complain("");
    for (const control of this.root.querySelectorAll(CONTROLS)) control.disabled = false;
    device.addEventListener("change", () => this.draw());
    this.draw();
  }

  detach() {
    this.device = undefined;
    this.list.clear();
    this.conflicts.clear();
    for (const part of [".queue ol", ".rejected"]) showAnew(this.find(part), [], () => []);
    for (const part of [".waiting", ".count", ".hash"]) setText(this.find(part), "–");
    for (const control of this.root.querySelectorAll(CONTROLS)) control.disabled = true;
    this.#showState({ name: "off", text: "No account" });
  }

  draw() {
    const device = this.device;
    if (!device) return;
    for (const { id, name } of device.rows) this.#names.set(id, name);
    this.#showState(stateOf(device));
    this.find(".switch").setAttribute("aria-checked", String(device.isOn));
    setText(this.find(".count"), String(device.rows.length));
    setText(this.find(".hash"), device.digest.hash);
    this.#showQueue(device);
    this.#showRejected(device);
    this.conflicts.show(device, this.#names, this.nameOf);
    this.list.show(device.rows, new Set(device.waiting.map(({ id }) => id)));
  }

  /** Light the app up while the story acts on it. */
  set isActing(isActing) {
    this.root.classList.toggle("acting", isActing);
    if (isActing) this.root.scrollIntoView({ block: "nearest" });
  }

  #showState({ name, text }) {
    this.find(".state").dataset.state = name;
    setText(this.find(".status"), text);
  }

  #showQueue(device) {
    const texts = device.waiting.slice(0, MOST_QUEUED).map((edit) => editText(edit, this.#names));
    if (device.waiting.length > texts.length) texts.push(`and ${device.waiting.length - texts.length} more`);
    setText(this.find(".waiting"), waitingText(device));
    this.find(".queue").dataset.waits = String(texts.length > 0);
    showAnew(this.find(".queue ol"), texts, () => texts.map((text) => element("li", {}, text)));
  }

  #showRejected({ rejected }) {
    showAnew(this.find(".rejected"), rejected, () => rejected.map((edit) => this.#refusal(edit)));
  }

  #refusal(edit) {
    const onclick = () => this.#do((device) => device.dismiss(edit.opId));
    const button = element("button", { type: "button", className: "small", onclick }, "Dismiss");
    return element("li", {}, `Refused: ${editText(edit, this.#names)} – ${edit.error} `, button);
  }

  #create(event) {
    event.preventDefault();
    const form = event.target;
    const { name, phone } = Object.fromEntries(new FormData(form));
    whileBusy(form.querySelector("button"), async () => {
      if (!(await this.#do((device) => device.save({ name, ...(phone && { phone }) })))) return;
      form.reset();
      form.elements.name.focus();
    });
  }

  /** Do what a person asked for, and show an error; returns whether it succeeded. */
  async #do(work) {
    try {
      await work(this.device);
      this.#complain("");
      return true;
    } catch (error) {
      this.#complain(error.message);
      return false;
    }
  }

  #complain(text) {
    setText(this.find(".problem"), text);
  }
}
