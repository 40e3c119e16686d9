// A device as people write it: the real socket.io-client from npm. Says each thing it hears as one line of JSON.
// usage: node listener.mjs URL TRANSPORT AUTH_JSON [event|ORIGIN]
// SOCKET_IO_CLIENT in the environment: the module of another version.
// "event": authenticate by event instead of the handshake. An origin: that of the page that it would run in.
const { io } = await import(process.env.SOCKET_IO_CLIENT ?? 'socket.io-client');

const [url, transport, authText, how] = process.argv.slice(2);
const auth = JSON.parse(authText);
const say = (event, payload) => console.log(JSON.stringify([event, payload ?? null]));
const extraHeaders = how?.includes('://') ? { Origin: how } : {};
const socket = io(url, { extraHeaders, transports: transport.split(','), auth: how === 'event' ? undefined : auth, reconnectionDelay: 100, reconnectionDelayMax: 200 });

socket.on('connect', () => {
  say('connect');
  if (how === 'event') socket.emit('authenticate', auth);
});
socket.on('disconnect', (reason) => say('disconnect', reason));
socket.on('connect_error', (error) => say('connect_error', error.message));
socket.onAny(say);

function burst(event, payload, count) {
  let answered = 0;
  for (let number = 0; number < count; number += 1) {
    socket.emit(event, payload, () => { answered += 1; if (answered === count) say('burst', answered); });
  }
}

// Each line on standard input is [event, payload]: sent with an acknowledgement, which is said as "ack". A third element:
// sent without, as older apps do; or a number, how often it is sent at once: how often it was acknowledged is said as "burst".
let rest = '';
process.stdin.on('data', (data) => {
  const lines = (rest + data).split('\n');
  rest = lines.pop();
  for (const line of lines) {
    const [event, payload, untold] = JSON.parse(line);
    if (typeof untold === 'number') burst(event, payload, untold);
    else if (untold) socket.emit(event, ...(payload === null ? [] : [payload]));
    else socket.timeout(10000).emit(event, payload, (error, answer) => say('ack', error ? String(error) : answer));
  }
});
process.stdin.on('end', () => { say('transport', socket.io.engine?.transport?.name); socket.close(); process.exit(0); });
