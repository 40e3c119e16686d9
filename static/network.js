// The network of one app, with a switch. It knows fetch and Socket.IO, and nothing of rows or of the page.
//
// It cuts below the client, as a tunnel does to a phone: requests under way break, new ones fail, the socket ends and
// does not come back. The client has to find out by itself, and to keep what is typed meanwhile.

const RECONNECTION_MS = 2000;

export class Network {
  #cut = new AbortController();
  #socket = null;

  constructor(isOn) {
    if (!isOn) this.#cut.abort();
  }

  get isOn() {
    return !this.#cut.signal.aborted;
  }

  /** Stand in for `fetch`; while the network is cut it fails at once. */
  fetch = (url, init) => {
    const signal = AbortSignal.any([init.signal, this.#cut.signal]);
    return fetch(url, { ...init, signal, credentials: "omit" });
  };

  /** Stand in for Socket.IO's `io`; whoever asks the socket to connect is refused while the network is cut. */
  io = (url, options) => {
    const socket = globalThis.io(url, { ...options, autoConnect: false, reconnectionDelayMax: RECONNECTION_MS });
    const connect = socket.connect.bind(socket);
    socket.connect = () => (this.isOn ? connect() : socket);
    this.#socket = socket;
    return socket.connect();
  };

  set(isOn) {
    if (isOn === this.isOn) return;
    if (isOn) this.#restore();
    else this.#sever();
  }

  #restore() {
    this.#cut = new AbortController();
    this.#socket?.connect();
  }

  #sever() {
    this.#cut.abort();
    this.#socket?.disconnect();
  }
}
