// The demonstration: a story in steps, each with a caption, played on the three devices with what the page's own
// controls call. Whoever takes a control meanwhile may; a story that can't go on says so and ends.

import { pause, until } from "./pace.js";

const PATIENCE_SECONDS = 15;
const PEOPLE = [["Asha", "Asha Rao", "Bela"], ["Chetan", "Chetan Iyer", "Devi"], ["Esha", "Esha Nair", "Farid"]];

/** What a story plays on: `show(caption)` shows a text, `act(number)` highlights an app (none if null), `made(id)` reports a row that it added. */
export class Story {
  static #played = 0;

  constructor(devices, verdict, { show, act, made, pauseMs }) {
    this.devices = devices;
    this.verdict = verdict;
    this.stage = { show, act, made, pauseMs };
    this.cast = PEOPLE[Story.#played++ % PEOPLE.length];
    this.ending = new AbortController();
  }

  stop() {
    this.ending.abort(new Interrupted("Stopped. The controls are yours."));
  }

  async play() {
    const steps = this.#steps();
    try {
      for (const [index, step] of steps.entries()) await this.#step(step, `${index + 1} of ${steps.length}`);
    } catch (error) {
      if (!(error instanceof Interrupted)) throw error;
      this.stage.show({ text: error.message });
    } finally {
      this.stage.act();
    }
  }

  async #step({ who, text, work, holds }, place) {
    this.stage.act(who);
    this.stage.show({ text, place });
    await pause(this.stage.pauseMs() / 3, this.ending.signal); // The caption first, then the action.
    await work?.();
    if (!(await until(holds, this.ending.signal, PATIENCE_SECONDS))) throw new Interrupted("Something came in between: the story ends here.");
    await pause(this.stage.pauseMs(), this.ending.signal);
  }

  #steps() {
    const [one, two, three] = this.devices;
    const [first, full, second] = this.cast;
    const phones = { two: "555-0102", three: "555-0103" };
    const edit = (device, fields) => device.save({ id: this.row.id, ...fields });
    const add = async (device, fields) => {
      const row = await device.save(fields);
      await this.stage.made(row.id);
      return row;
    };
    const all = (holds) => () => this.devices.every(holds);
    const mine = (device) => device.rows.find(({ id }) => id === this.row?.id);
    const conflict = () => two.conflicts.find(({ id }) => id === this.row.id);
    return [
      {
        text: "Three devices of one business. Each has a copy of its own, and what it is told while it is offline waits in its queue.",
        work: () => Promise.all(this.devices.map((device) => device.setOnline(true))),
        holds: () => this.verdict.isEqual,
      },
      {
        who: 1,
        text: `App 1 adds ${first}. The others have the row at once.`,
        work: async () => (this.row = await add(one, { name: first, phone: "555-0101" })),
        holds: all((device) => mine(device)?.version),
      },
      {
        who: 2,
        text: "App 2 and App 3 go into a tunnel: no network at all.",
        work: () => Promise.all([two.setOnline(false), three.setOnline(false)]),
        holds: () => !two.isOn && !three.isOn,
      },
      {
        who: 2,
        text: `App 2 changes the phone, and adds ${second}. Both edits wait in its queue.`,
        work: async () => (await edit(two, { phone: phones.two }), await add(two, { name: second })),
        holds: () => two.waiting.length >= 2,
      },
      {
        who: 3,
        text: "App 3 changes the same phone to something else. It can’t know.",
        work: () => edit(three, { phone: phones.three }),
        holds: () => three.waiting.length >= 1,
      },
      {
        who: 1,
        text: `App 1, online all the time, writes the full name: ${full}.`,
        work: () => edit(one, { name: full }),
        holds: () => !one.waiting.length && mine(one)?.name === full,
      },
      {
        who: 2,
        text: "App 2 comes back. Its queue is sent; its phone and the full name of App 1 are both kept.",
        work: () => two.setOnline(true),
        holds: () => !two.waiting.length && [one, two].every((device) => mine(device)?.name === full && mine(device)?.phone === phones.two),
      },
      {
        who: 3,
        text: "App 3 comes back, and the phone was changed twice: a conflict. The later edit stands for now, the other is not lost.",
        work: () => three.setOnline(true),
        holds: () => !three.waiting.length && conflict() && three.conflicts.some(({ id }) => id === this.row.id),
      },
      {
        who: 2,
        text: "App 2 decides: keep mine.",
        work: () => two.resolve(conflict(), "mine"),
        holds: all((device) => mine(device)?.phone === phones.two && !device.conflicts.some(({ id }) => id === this.row.id)),
      },
      {
        text: "All three hold the same, to the last version, and so does the server. Nothing typed was lost. Now you: switch one off.",
        holds: () => this.verdict.isEqual,
      },
    ];
  }
}

class Interrupted extends Error {}
