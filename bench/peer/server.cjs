// What syncapp is measured against: the same promises (durable before the answer, one database a tenant, JWT, a room a
// tenant) by the shortest good road through express, socket.io and better-sqlite3. It merges no fields, keeps no history,
// checks no types and resolves no conflicts; so it has less to do, and is a hard peer.
'use strict';
const crypto = require('node:crypto');
const fs = require('node:fs');
const http = require('node:http');
const path = require('node:path');
const { promisify } = require('node:util');
const Database = require('better-sqlite3');
const compression = require('compression');
const express = require('express');
const jwt = require('jsonwebtoken');
const { Server } = require('socket.io');

const FOLDER = process.env.DATA_DIR;
const SECRET = crypto.createSecretKey(process.env.JWT_SECRET_KEY, 'utf8'); // As a text it costs a millisecond a request.
const scrypt = promisify(crypto.scrypt);
const hash = (password, salt) => scrypt(password, salt, 32, { N: Number(process.env.SCRYPT_COST || 16384) });
const MOST_OPEN = Number(process.env.OPEN_TENANTS || 256);

function open(file, schema) {
  const db = new Database(path.join(FOLDER, file));
  db.pragma('journal_mode = WAL');
  db.pragma('synchronous = FULL');
  db.exec(schema);
  return db;
}

const directory = open('main.db', `CREATE TABLE IF NOT EXISTS customers
  (id TEXT PRIMARY KEY, email TEXT UNIQUE NOT NULL, salt BLOB NOT NULL, hash BLOB NOT NULL)`);
const addCustomer = directory.prepare('INSERT INTO customers VALUES (?, ?, ?, ?)');
const tenants = new Map(); // In the order of use, the latest last.
const keyOf = (row) => row?.id ?? row?.Unique_id;

function closeOldest() {
  const [id, { db }] = tenants.entries().next().value;
  tenants.delete(id);
  db.close();
}

/** The open database of a tenant, with its prepared statements. */
function tenantOf(id) {
  const known = tenants.get(id);
  if (known) {
    tenants.delete(id);
    tenants.set(id, known);
    return known;
  }
  if (tenants.size >= MOST_OPEN) closeOldest();
  const db = open(`tenant_${id}.db`, `CREATE TABLE IF NOT EXISTS rows (tbl TEXT, id TEXT, seq INTEGER NOT NULL,
    version INTEGER NOT NULL, data TEXT NOT NULL, PRIMARY KEY (tbl, id)) WITHOUT ROWID;
    CREATE UNIQUE INDEX IF NOT EXISTS by_seq ON rows (seq)`);
  const put = db.prepare(`INSERT INTO rows VALUES (?, ?, ?, 1, ?)
    ON CONFLICT (tbl, id) DO UPDATE SET seq = excluded.seq, version = version + 1, data = excluded.data RETURNING version`);
  const after = db.prepare('SELECT seq, tbl, version, data FROM rows WHERE seq > ? ORDER BY seq LIMIT ?');
  const tenant = { db, seq: db.prepare('SELECT coalesce(max(seq), 0) AS seq FROM rows').get().seq, after };
  const write = db.transaction((table, rows, first) => rows.map((row, i) => {
    const { version } = put.get(table, keyOf(row), first + i + 1, JSON.stringify(row));
    return { id: keyOf(row), version };
  }));
  tenant.push = (table, rows) => {
    const results = write(table, rows, tenant.seq);
    tenant.seq += rows.length;
    return results;
  };
  tenants.set(id, tenant);
  return tenant;
}

function addTenant(email, salt, key) {
  const id = crypto.randomUUID().replaceAll('-', '');
  tenantOf(id);
  addCustomer.run(id, email, salt, key);
  return id;
}

function push(io, tenantId, { table, rows }) {
  if (typeof table !== 'string' || !Array.isArray(rows) || rows.some((row) => typeof keyOf(row) !== 'string')) {
    return { success: false, error: 'table and rows with an id are needed' };
  }
  const tenant = tenantOf(tenantId);
  const results = tenant.push(table, rows);
  const one = rows.length === 1 ? { row: { ...rows[0], version: results[0].version } } : {};
  io.to(tenantId).emit('sync_notification', { table, cursor: tenant.seq, count: rows.length, ...one });
  return { success: true, results, cursor: tenant.seq };
}

function pull(tenantId, { cursor, limit }) {
  const found = tenantOf(tenantId).after.all(Number(cursor) || 0, Math.min(Number(limit) || 1000, 10000));
  const rows = found.map((row) => ({ ...JSON.parse(row.data), version: row.version }));
  const last = found.length ? found.at(-1).seq : Number(cursor) || 0;
  return { success: true, rows, cursor: last, hasMore: last < tenantOf(tenantId).seq };
}

function serve() {
  const app = express();
  const server = http.createServer(app);
  const io = new Server(server);
  app.disable('x-powered-by');
  app.use(express.json({ limit: '16mb' }));
  app.get('/health', (_, res) => res.json({ status: 'ok' }));
  app.post('/register', async (req, res) => {
    const salt = crypto.randomBytes(16);
    const id = addTenant(req.body.email, salt, await hash(req.body.password, salt));
    res.status(201).json({ token: jwt.sign({ customerId: id, type: 'client' }, SECRET, { expiresIn: '24h' }) });
  });
  app.use((req, res, next) => {
    try {
      req.tenant = jwt.verify((req.headers.authorization || '').slice(7), SECRET, { algorithms: ['HS256'] }).customerId;
    } catch {
      return res.status(401).json({ success: false, error: 'a valid token is needed' });
    }
    return next();
  });
  app.post('/push', (req, res) => {
    const answer = push(io, req.tenant, req.body);
    res.status(answer.success ? 200 : 400).json(answer);
  });
  app.post('/pull', compression(), (req, res) => res.json(pull(req.tenant, req.body)));
  io.use((socket, next) => {
    try {
      socket.tenant = jwt.verify(socket.handshake.auth.token, SECRET, { algorithms: ['HS256'] }).customerId;
      next();
    } catch (error) {
      next(error);
    }
  });
  io.on('connection', (socket) => {
    socket.join(socket.tenant);
    socket.on('sync_push', (body, done) => done(push(io, socket.tenant, body)));
  });
  server.listen(Number(process.env.PORT), '127.0.0.1', 4096);
}

serve();
