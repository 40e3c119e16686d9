// One Socket.IO connection, and its state in words. It comes back by itself when a server that went away is back.

import { whyUnreachable } from "./api.js";

const FAILED = "WebSocket connection failed: ";
const RETRIES = "Connects by itself when the server is back.";

/**
 * `auth` gives what to authenticate with, called at each attempt. `handlers` has `state({name, text, hint})` with name
 * off, busy, on, lost or failed, and `event(name, payload)` for everything the server sends.
 */
export class Connection {
  constructor(server, auth, handlers) {
    this.server = server;
    this.handlers = handlers;
    this.state = "off";
    this.attempt = 0;
    this.socket = typeof io === "undefined" ? null : this.#socket(auth);
  }

  open() {
    if (!this.socket) return this.#setState("failed", `${FAILED}the Socket.IO client could not be loaded`);
    this.#setState("busy", "Connecting…");
    this.socket.connect();
  }

  close() {
    this.#setState("off", "Disconnected"); // First, so that the end of the socket is no surprise.
    this.socket?.disconnect();
  }

  emit(name, ...body) {
    this.socket?.emit(name, ...body);
  }

  get isOn() {
    return this.state === "on";
  }

  /** Tell whether it is on or on its way, so that the next thing to offer is to end it. */
  get isWanted() {
    return ["busy", "on", "lost"].includes(this.state);
  }

  #socket(auth) {
    const options = { auth: (give) => give(auth()), autoConnect: false, forceNew: true, reconnectionDelayMax: 4000 };
    const socket = io(this.server, options);
    socket.onAny((name, payload) => this.handlers.event(name, payload));
    socket.on("connect", () => this.#setState("busy", "Connecting…", "The server answers and checks the token."));
    socket.on("authenticated", () => this.#setState("on", "Connected"));
    socket.on("authentication_error", (error) => this.#refused(error));
    socket.on("disconnect", (reason) => this.#disconnected(reason));
    socket.on("connect_error", (error) => this.#failed(error));
    return socket;
  }

  #refused(error) {
    this.#setState("failed", `${FAILED}token refused – ${error?.message ?? "no reason given"}`);
  }

  /** After a refusal or our own end nothing comes; else the client comes back by itself. */
  #disconnected(reason) {
    if (!this.isWanted) return;
    if (reason === "io server disconnect") return this.#setState("failed", "Disconnected by the server");
    this.#setState("lost", "Connection lost: the server has gone away", RETRIES);
  }

  /** Find out why, unless the state has moved on when the answer is there. */
  async #failed(error) {
    const attempt = this.attempt;
    const why = await whyUnreachable(this.server);
    if (attempt !== this.attempt) return;
    if (why?.startsWith("origin")) return this.#giveUp(FAILED + why);
    if (!this.socket.active) return this.#giveUp(FAILED + error.message);
    this.#setState("lost", FAILED + (why ?? `the server answers, but not on its Socket.IO path (${error.message})`), RETRIES);
  }

  /** Stop asking a server that will not say yes before someone changes it. */
  #giveUp(text) {
    this.#setState("failed", text);
    this.socket.disconnect();
  }

  #setState(name, text, hint = "") {
    this.attempt += 1;
    this.state = name;
    this.handlers.state({ name, text, hint });
  }
}
