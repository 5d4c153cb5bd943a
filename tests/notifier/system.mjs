// system.mjs - what the notifier's tests run against: a PostgreSQL of their own, certificates, and the notifier as a child process.
//
// The cluster is a copy of the one that the suite makes once a run (CHAT_TEST_TEMPLATE names the file with its path). Nothing listens on anything
// but 127.0.0.1 and a socket in the temporary directory. Waiting is waiting for a condition, with a deadline.
import { execFile, execFileSync, spawn } from 'node:child_process';
import { promisify } from 'node:util';
import fs from 'node:fs';
import os from 'node:os';
import path from 'node:path';

const run = promisify(execFile);
const root = process.getuid() === 0;
const slow = Number(process.env.CHAT_TEST_SLOW ?? 1);
export const DEADLINE_MS = 60000 * slow;

const server = (() => {
  const versions = fs.existsSync('/usr/lib/postgresql') ? fs.readdirSync('/usr/lib/postgresql').map(Number).sort((a, b) => b - a) : [];
  return versions.length ? `/usr/lib/postgresql/${versions[0]}/bin` : execFileSync('pg_config', ['--bindir']).toString().trim();
})();

export async function until(what, condition, deadline_ms = DEADLINE_MS) {
  const end = Date.now() + deadline_ms;
  for (;;) {
    const value = await condition();
    if (value) return value;
    if (Date.now() > end) throw new Error(`waited in vain for: ${typeof what === 'function' ? what() : what}`);
    await new Promise((resolve) => setTimeout(resolve, 10));
  }
}

// R, S, T, Z and so on, as /proc has it; undefined: it is gone.
function processState(pid) {
  try { return /^State:\s+(\w)/m.exec(fs.readFileSync(`/proc/${pid}/status`, 'utf8'))[1]; } catch { return undefined; }
}

function listensToSignals(pid) {
  try { return (BigInt(`0x${/^SigBlk:\s+(\w+)/m.exec(fs.readFileSync(`/proc/${pid}/status`, 'utf8'))[1]}`) & (1n << 14n)) !== 0n; } catch { return true; } // SIGTERM is 15
}

// A connection to the database that stays, for those that say much. psql at the other end.
export class Session {
  constructor(conninfo) {
    this.child = spawn('psql', ['-X', '-q', '-A', '-t', '-v', 'ON_ERROR_STOP=1', '-d', conninfo], { stdio: ['pipe', 'pipe', 'ignore'] });
    this.child.stdin.on('error', () => {});
    this.lines = [];
    let text = '';
    this.child.stdout.setEncoding('utf8').on('data', (data) => {
      const lines = (text + data).split('\n');
      text = lines.pop();
      for (const line of lines) {
        if (line === 'done') this.settle?.resolve(this.lines.splice(0)[0]);
        else this.lines.push(line);
      }
    });
    this.ended = new Promise((resolve) => this.child.once('exit', resolve));
    this.ended.then(() => { this.over = true; this.settle?.reject(new Error('the session has ended')); });
  }

  // The first row of what one statement returns. An error ends the session.
  async value(sql) {
    if (this.over) throw new Error('the session has ended');
    return new Promise((resolve, reject) => {
      this.settle = { resolve, reject };
      this.child.stdin.write(`${sql};\n\\echo done\n`);
    });
  }

  async end() {
    this.child.stdin.end();
    await this.ended;
  }
}

export class System {
  // Makes the directory, the certificates and the database.
  static async start() {
    const system = new System();
    system.directory = fs.mkdtempSync(path.join(os.tmpdir(), 'chat-notifier-'));
    fs.chmodSync(system.directory, 0o755);
    system.processes = new Set();
    process.on('exit', () => system.kill());
    system.certificates();
    await system.cluster();
    return system;
  }

  file(name) {
    return path.join(this.directory, name);
  }

  // A CA, and certificates by it for a server and a client.
  certificates() {
    const openssl = (...args) => execFileSync('openssl', args, { cwd: this.directory, stdio: ['ignore', 'ignore', 'pipe'] });
    const ec = ['-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:P-256', '-nodes', '-days', '2'];
    openssl('req', '-x509', ...ec, '-keyout', 'ca.key', '-out', 'ca.pem', '-subj', '/CN=test CA');
    fs.writeFileSync(this.file('names'), 'subjectAltName=DNS:localhost,IP:127.0.0.1\n');
    for (const name of ['server', 'client']) {
      openssl('req', ...ec, '-keyout', `${name}.key`, '-out', `${name}.csr`, '-subj', `/CN=${name}`);
      openssl('x509', '-req', '-in', `${name}.csr`, '-CA', 'ca.pem', '-CAkey', 'ca.key', '-CAcreateserial', '-days', '2', '-out', `${name}.pem`, '-extfile', 'names');
    }
    openssl('genpkey', '-algorithm', 'EC', '-pkeyopt', 'ec_paramgen_curve:P-256', '-out', 'vapid.pem');
    openssl('genpkey', '-algorithm', 'EC', '-pkeyopt', 'ec_paramgen_curve:P-256', '-out', 'apns.p8');
    openssl('genpkey', '-algorithm', 'RSA', '-pkeyopt', 'rsa_keygen_bits:2048', '-out', 'google.pem');
    openssl('pkey', '-in', 'apns.p8', '-pubout', '-out', 'apns.pub');
    openssl('pkey', '-in', 'google.pem', '-pubout', '-out', 'google.pub');
    openssl('pkey', '-in', 'vapid.pem', '-pubout', '-out', 'vapid.pub');
    for (const name of ['vapid.pem', 'apns.p8', 'google.pem', 'client.key']) fs.chmodSync(this.file(name), 0o600);
  }

  tls() {
    return { key: fs.readFileSync(this.file('server.key')), cert: fs.readFileSync(this.file('server.pem')), ca: fs.readFileSync(this.file('ca.pem')) };
  }

  asPostgres(command) {
    return root ? ['setpriv', '--reuid', 'postgres', '--regid', 'postgres', '--clear-groups', '--pdeathsig', 'KILL', ...command] : command;
  }

  async cluster() {
    const template = fs.readFileSync(process.env.CHAT_TEST_TEMPLATE, 'utf8').trim();
    this.data = this.file('data');
    execFileSync('cp', ['-a', template, this.data]);
    this.socket = this.file('socket');
    fs.mkdirSync(this.socket);
    fs.chmodSync(this.socket, 0o777);
    const me = os.userInfo().username;
    fs.writeFileSync(path.join(this.data, 'pg_hba.conf'), 'local all all peer map=test\n');
    fs.writeFileSync(path.join(this.data, 'pg_ident.conf'),
      [...new Set([me, 'postgres'])].flatMap((who) => ['postgres', 'chat_notifier', 'chat_plugin'].map((role) => `test ${who} ${role}\n`)).join(''));
    await this.startPostgres();
    await this.beginNow();
  }

  // As if a notifier had been here: the first look ever takes its own moment for the beginning, and a test's first message may be there before it.
  async beginNow() {
    await this.sql(`UPDATE chat.push_cursor SET read_to = NULL, safe_at = NULL, check_at = NULL, check_xid = NULL, again_from = NULL, again_xid = NULL;
      SELECT * FROM chat.find_pushes(0, 86400000)`);
  }

  async startPostgres() {
    const options = { listen_addresses: '', unix_socket_directories: this.socket, fsync: 'off', shared_buffers: '64MB', max_connections: '100', autovacuum: 'off', log_min_messages: 'warning', ...(process.env.CHAT_BENCH_LOG ? { log_min_duration_statement: process.env.CHAT_BENCH_LOG } : {}) };
    const command = this.asPostgres([`${server}/postgres`, '-D', this.data, ...Object.entries(options).flatMap(([name, value]) => ['-c', `${name}=${value}`])]);
    const log = fs.openSync(this.file('postgres.log'), 'a');
    this.postgres = spawn(command[0], command.slice(1), { stdio: ['ignore', log, log] });
    this.processes.add(this.postgres);
    await until('PostgreSQL', async () => run(`${server}/pg_isready`, ['-q', '-h', this.socket]).then(() => true, () => false));
  }

  // As by a kill -9 of the postmaster; its children notice and end.
  async killPostgres() {
    const gone = new Promise((resolve) => this.postgres.once('exit', resolve));
    // Stopped, it starts no other one between the list and the end.
    this.postgres.kill('SIGSTOP');
    await until('PostgreSQL to stand still', () => processState(this.postgres.pid) === 'T');
    const children = execFileSync('sh', ['-c', `cat /proc/${this.postgres.pid}/task/*/children 2>/dev/null || true`]).toString().trim().split(/\s+/).filter(Boolean);
    this.postgres.kill('SIGKILL');
    for (const pid of children) try { process.kill(Number(pid), 'SIGKILL'); } catch { /* it is gone */ }
    await gone;
    this.processes.delete(this.postgres);
    await until('the end of all backends', () => children.every((pid) => ['Z', undefined].includes(processState(pid))));
    fs.rmSync(path.join(this.data, 'postmaster.pid'), { force: true });
  }

  conninfo(role) {
    return `host=${this.socket} dbname=chat user=${role}`;
  }

  // Runs SQL as superuser; rows of columns.
  async sql(text, role = 'postgres') {
    const child = run('psql', ['-X', '-q', '-A', '-t', '-F', '\t', '-v', 'ON_ERROR_STOP=1', '-d', this.conninfo(role), '-c', text], { maxBuffer: 1 << 28 });
    const { stdout } = await child;
    return stdout.split('\n').filter((line) => line !== '').map((line) => line.split('\t'));
  }

  async value(text) {
    return (await this.sql(text))[0]?.[0];
  }

  serviceAccount(token_uri) {
    const file = this.file(`service-account-${new URL(token_uri).port}.json`);
    fs.writeFileSync(file, JSON.stringify({ type: 'service_account', project_id: 'demo-project', private_key_id: 'key1',
      private_key: fs.readFileSync(this.file('google.pem'), 'utf8'), client_email: 'push@demo-project.iam.gserviceaccount.com', token_uri }), { mode: 0o600 });
    return file;
  }

  // A section of the configuration, for an app that sends to a stub.
  section(name, provider, stub, options = {}) {
    const own = {
      fcm: () => ({ service_account: this.serviceAccount(`${stub.origin}/token`), url: stub.origin }),
      apns: () => ({ url: stub.origin, topic: 'org.example.chat', key_file: this.file('apns.p8'), key_id: 'KEYID12345', team_id: 'TEAMID1234' }),
      webpush: () => ({ key_file: this.file('vapid.pem'), subject: 'mailto:ops@example.org', any_host: 'on' }),
    };
    const all = { provider, ca_file: this.file('ca.pem'), ...own[provider](), ...options };
    return `[${name}]\n${Object.entries(all).map(([option, value]) => `${option} = ${value}\n`).join('')}`;
  }

  configure(text, name = 'notifier.conf') {
    const file = this.file(name);
    fs.writeFileSync(file, `database = ${this.conninfo('chat_notifier')}\n${text}`);
    return file;
  }

  // Starts the notifier; `text` is its configuration without the database.
  notifier(text, { args = [], env = {}, file = this.configure(text) } = {}) {
    const child = spawn(process.env.CHAT_NOTIFIER, ['--config', file, ...args], { stdio: ['ignore', 'pipe', 'pipe'], env: { ...process.env, ...env } });
    this.processes.add(child);
    child.output = '';
    for (const stream of [child.stdout, child.stderr]) {
      stream.on('data', (data) => { child.output += data; });
      if (process.env.CHAT_TEST_VERBOSE) stream.pipe(process.stderr, { end: false });
    }
    child.ended = new Promise((resolve) => child.once('close', (code, signal) => { this.processes.delete(child); resolve({ code, signal, output: child.output }); }));
    return child;
  }

  // A number of its /metrics; it must listen.
  async metric(child, name, app) {
    const [, port] = await until('the port of the metrics', () => /metrics and health on 127\.0\.0\.1:(\d+)/.exec(child.output));
    const text = await (await fetch(`http://127.0.0.1:${port}/metrics`)).text();
    return Number(new RegExp(`^chat_notifier_${name}\\{app="${app}"\\} (\\d+)$`, 'm').exec(text)?.[1]);
  }

  // Ends it with SIGTERM, and fails where that is no clean end. Before it has taken the signal over (SigBlk), it would die of it.
  async end(child) {
    await until('the notifier to listen to signals', () => child.exitCode !== null || child.signalCode !== null || listensToSignals(child.pid));
    child.kill('SIGTERM');
    const { code, signal, output } = await child.ended;
    if (code !== 0) throw new Error(`the notifier ended with ${code ?? signal}:\n${output}`);
    return output;
  }

  kill() {
    for (const child of this.processes) child.kill('SIGKILL');
    fs.rmSync(this.directory, { recursive: true, force: true });
  }

  async stop() {
    const all = [...this.processes].map((child) => new Promise((resolve) => child.once('exit', resolve)));
    for (const child of this.processes) child.kill('SIGKILL');
    await Promise.all(all);
    await until('the end of the database', () => { try { fs.rmSync(this.directory, { recursive: true, force: true }); return true; } catch { return false; } });
  }

  // ---- rows: users from 101 up, so that the demo ones stay what they are

  async people(count, conversation = 501, first = 101) {
    await this.sql(`INSERT INTO chat.users (id, username, display_name) SELECT i, 'person' || i, 'Person ' || i FROM generate_series(${first}, ${first + count - 1}) i ON CONFLICT DO NOTHING;
      INSERT INTO chat.conversations (id, type, name) VALUES (${conversation}, 'group', 'Lunch');
      INSERT INTO chat.conversation_participants (conversation_id, user_id) SELECT ${conversation}, i FROM generate_series(${first}, ${first + count - 1}) i`);
  }

  async device(id, user, provider, app, target) {
    const webpush = provider === 'webpush';
    await this.sql(`INSERT INTO chat.devices (id, user_id) VALUES (${id}, ${user}) ON CONFLICT DO NOTHING;
      INSERT INTO chat.push_targets (device_id, provider, app, token, subscription) VALUES (${id}, '${provider}', '${app}', ${webpush ? 'NULL' : `'${target}'`}, ${webpush ? `'${JSON.stringify(target)}'` : 'NULL'})`);
  }

  // A group: a sender, and `count` members with a device each; target(i) is the i-th one's token or subscription.
  async crowd(conversation, count, provider, app, target) {
    const first = conversation * 1000, column = provider === 'webpush' ? 'subscription' : 'token';
    const value = (i) => (provider === 'webpush' ? `'${JSON.stringify(target(i))}'::jsonb` : `'${target(i)}'`);
    await this.people(count + 1, conversation, first);
    await this.sql(`INSERT INTO chat.devices (id, user_id) SELECT i, i FROM generate_series(${first + 1}, ${first + count}) i;
      INSERT INTO chat.push_targets (device_id, provider, app, ${column}) VALUES ${Array.from({ length: count }, (_, i) => `(${first + 1 + i}, '${provider}', '${app}', ${value(i)})`).join(', ')}`);
    return { conversation, sender: first, count };
  }

  // How many of its rows are in a state.
  async count(conversation, state) {
    return Number(await this.value(`SELECT count(*) FROM chat.pushes WHERE conversation_id = ${conversation} AND state = '${state}'`));
  }

  // As the plugin stores them: one transaction. Returns the newest seq.
  async send(conversation, sender, body, options) {
    return Number(await this.value(this.sending(conversation, sender, body, options)));
  }

  async mark(...args) {
    await this.sql(this.marking(...args));
  }

  async transaction(...statements) {
    await this.sql(statements.join(';\n')); // psql -c runs them as one
  }

  sending(conversation, sender, body = 'hello', { type = 'text', count = 1, extra = null } = {}) {
    const all = (value, kind) => `array_fill(${value}::${kind}, ARRAY[${count}])`;
    return `SELECT max(seq) FROM chat.append_messages(gen_random_uuid(), '{}', '{}', '{}', ${all(conversation, 'bigint')}, ${all(sender, 'bigint')}, ${all(0, 'bigint')},
      ARRAY(SELECT gen_random_uuid() FROM generate_series(1, ${count})), ${all('gen_random_uuid()', 'uuid')}, ${all(`'${type}'`, 'text')}, ${all(`$body$${body}$body$`, 'text')},
      ${all('NULL', 'bigint')}, ${all('NULL', 'bigint')}, ${all(extra ? `'${JSON.stringify(extra)}'` : 'NULL', 'jsonb')}, ${all('now()', 'timestamptz')}, ${all('NULL', 'timestamptz')})`;
  }

  marking(conversation, user, device, { delivered = 0, read = 0 }) {
    return `SELECT count(*) FROM chat.append_marks(gen_random_uuid(), '{}', '{}', '{}', '{${conversation}}', '{${user}}', '{${device}}', '{${delivered}}', '{${read}}', ARRAY[now()])`;
  }
}
