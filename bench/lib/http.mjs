// A keep-alive HTTP/1.1 client that does little, so that the server is what is measured: one request at a time a socket.
import net from 'node:net';

const END_OF_HEAD = Buffer.from('\r\n\r\n');

/** The bytes of a request, to be made before the clock runs. */
export function request(method, path, { token, basic, body, encoding } = {}) {
  const text = body === undefined ? '' : typeof body === 'string' ? body : JSON.stringify(body);
  const lines = [`${method} ${path} HTTP/1.1`, 'Host: 127.0.0.1', `Content-Length: ${Buffer.byteLength(text)}`];
  if (token) lines.push(`Authorization: Bearer ${token}`);
  if (basic) lines.push(`Authorization: Basic ${Buffer.from(basic).toString('base64')}`);
  if (encoding) lines.push(`Accept-Encoding: ${encoding}`);
  if (text) lines.push('Content-Type: application/json');
  return `${lines.join('\r\n')}\r\n\r\n${text}`;
}

export class Connection {
  #socket; #answer = null; #port; #rest = null;

  constructor(port) { this.#port = port; }

  #connect() {
    return new Promise((resolve, reject) => {
      const socket = net.connect({ host: '127.0.0.1', port: this.#port, noDelay: true });
      socket.once('connect', () => resolve(socket)).on('data', (data) => this.#take(data));
      socket.on('error', (error) => { reject(error); this.#fail(error); });
      socket.on('close', () => { this.#socket = null; this.#fail(new Error('the server closed the connection')); });
    });
  }

  /** Send bytes made by `request`; gives {status, body, firstByte}, the last being the time of the answer's first byte. */
  async send(bytes) {
    this.#socket ??= await this.#connect();
    return new Promise((resolve, reject) => {
      this.#answer = { resolve, reject, status: 0, parts: [], got: 0, length: -1, left: 0, line: '', firstByte: 0, last: false };
      this.#socket.write(bytes);
    });
  }

  async json(bytes) {
    const { status, body } = await this.send(bytes);
    if (status >= 300) throw new Error(`${status} ${body.toString().slice(0, 300)}`);
    return JSON.parse(body);
  }

  #take(data) {
    const answer = this.#answer;
    if (!answer) return;
    if (answer.status) return this.#body(answer, data);
    answer.firstByte ||= performance.now();
    const all = this.#rest ? Buffer.concat([this.#rest, data]) : data;
    const end = all.indexOf(END_OF_HEAD);
    if (end < 0) { this.#rest = all; return; }
    this.#rest = null;
    const head = all.latin1Slice(0, end);
    answer.status = Number(head.slice(9, 12));
    const length = /\r\ncontent-length: *(\d+)/i.exec(head);
    answer.length = length ? Number(length[1]) : answer.status === 204 ? 0 : -1;
    answer.closes = /\r\nconnection: *close/i.test(head);
    this.#body(answer, all.subarray(end + 4));
  }

  #body(answer, data) {
    if (answer.length >= 0) {
      answer.parts.push(data);
      answer.got += data.length;
      if (answer.got >= answer.length) this.#done(answer);
      return;
    }
    let at = 0;
    while (at < data.length) { // chunked: a line with the size, the bytes, an empty line; size 0 is the last
      if (answer.left > 0) {
        const part = data.subarray(at, at + answer.left);
        answer.parts.push(part);
        answer.left -= part.length;
        at += part.length;
        continue;
      }
      const end = data.indexOf(10, at);
      answer.line += data.latin1Slice(at, end < 0 ? data.length : end);
      if (end < 0) return;
      at = end + 1;
      const line = answer.line.trim();
      answer.line = '';
      if (line) { answer.left = parseInt(line, 16); answer.last = answer.left === 0; }
      else if (answer.last) return this.#done(answer);
    }
  }

  #done(answer) {
    this.#answer = null;
    if (answer.closes) this.close();
    const body = answer.parts.length === 1 ? answer.parts[0] : Buffer.concat(answer.parts);
    answer.resolve({ status: answer.status, body, firstByte: answer.firstByte });
  }

  #fail(error) { const answer = this.#answer; this.#answer = null; answer?.reject(error); }

  close() { const socket = this.#socket; this.#socket = null; socket?.destroy(); }
}
