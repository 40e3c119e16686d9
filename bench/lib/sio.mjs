// A Socket.IO client (protocol 5 over one WebSocket) that does little: frames are given as they lie in the read buffer.
import crypto from 'node:crypto';
import net from 'node:net';

const BUFFER = Buffer.allocUnsafeSlow(1 << 18); // Shared by all sockets: each read is dealt with before the next.
const TEXT = 1; const CLOSE = 8; const PING = 9;

/** A client's frame; the mask is zero, so that masking costs us nothing. */
export function frame(payload, opcode = TEXT) {
  const body = Buffer.from(payload);
  const long = body.length > 65535; const middle = !long && body.length > 125;
  const head = Buffer.alloc(long ? 14 : middle ? 8 : 6);
  head[0] = 0x80 | opcode;
  head[1] = 0x80 | (long ? 127 : middle ? 126 : body.length);
  if (long) head.writeBigUInt64BE(BigInt(body.length), 2);
  else if (middle) head.writeUInt16BE(body.length, 2);
  return Buffer.concat([head, body]);
}

export class Socket {
  #socket; #rest = null; #upgraded = false; #acks = new Map(); #next = 0; #ready; #fail; #isReady; #heard; #token;

  /** Connect and join; resolves when `isReady(text)` is true of a packet. `heard(bytes)` gets every event after that. */
  static open(port, token, isReady, heard) {
    return new Promise((resolve, reject) => {
      const one = new Socket();
      one.#token = token; one.#isReady = isReady; one.#heard = heard;
      one.#ready = () => { one.#ready = null; resolve(one); };
      one.#fail = reject;
      one.#socket = net.connect({
        host: '127.0.0.1', port, noDelay: true, onread: { buffer: BUFFER, callback: (size) => one.#take(BUFFER.subarray(0, size)) },
      });
      one.#socket.on('error', reject).on('close', () => { one.closed = true; reject(new Error('the server closed the socket')); });
      const key = crypto.randomBytes(16).toString('base64');
      one.#socket.write(`GET /socket.io/?EIO=4&transport=websocket HTTP/1.1\r\nHost: 127.0.0.1:${port}\r\nUpgrade: websocket\r\n`
        + `Connection: Upgrade\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: ${key}\r\n\r\n`);
    });
  }

  #take(data) {
    let all = this.#rest ? Buffer.concat([this.#rest, data]) : data;
    this.#rest = null;
    if (!this.#upgraded) {
      const end = all.indexOf('\r\n\r\n');
      if (end < 0) { this.#rest = Buffer.from(all); return true; }
      if (all.latin1Slice(9, 12) !== '101') { this.#fail(new Error(all.latin1Slice(0, 200))); this.close(); return true; }
      this.#upgraded = true;
      all = all.subarray(end + 4);
    }
    let at = 0;
    while (all.length - at >= 2) {
      let size = all[at + 1] & 127; let from = at + 2;
      if (size === 126) { if (all.length < from + 2) break; size = all.readUInt16BE(from); from += 2; }
      else if (size === 127) { if (all.length < from + 8) break; size = Number(all.readBigUInt64BE(from)); from += 8; }
      if (all.length < from + size) break;
      this.#frame(all[at] & 15, all.subarray(from, from + size));
      at = from + size;
    }
    if (at < all.length) this.#rest = Buffer.from(all.subarray(at));
    return true;
  }

  #frame(opcode, payload) {
    if (opcode === PING) this.#socket.write(frame(payload, 10));
    else if (opcode === CLOSE) this.close();
    else if (payload[0] === 0x32) this.#socket.write(frame('3')); // engine.io: ping
    else if (payload[0] === 0x30) this.#socket.write(frame(`40${JSON.stringify({ token: this.#token })}`)); // open
    else if (payload[0] === 0x34) this.#packet(payload);
  }

  #packet(payload) {
    if (payload[1] === 0x33) { // acknowledgement
      const start = payload.indexOf(0x5b);
      const id = Number(payload.latin1Slice(2, start));
      const done = this.#acks.get(id);
      this.#acks.delete(id);
      done(Buffer.from(payload.subarray(start + 1, payload.length - 1)));
    } else if (this.#ready && this.#isReady(payload.toString('utf8', 0, Math.min(payload.length, 64)))) this.#ready();
    else if (payload[1] === 0x34) this.#fail(new Error(payload.toString()));
    else if (payload[1] === 0x32) this.#heard?.(payload);
  }

  /** Emit an event whose payload is JSON text, and give the acknowledgement's bytes. */
  ask(event, text) {
    const id = this.#next++;
    return new Promise((resolve) => {
      this.#acks.set(id, resolve);
      this.#socket.write(frame(`42${id}["${event}",${text}]`));
    });
  }

  close() { this.closed = true; this.#socket.destroy(); }
}
