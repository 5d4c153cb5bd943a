// bench.mjs - what the notifier does, and what it costs. Stubs that check nothing, PostgreSQL and it share this machine. docs/performance.md has figures.
//
//   tests/notifier/by_hand.sh BUILD bench.mjs queue [PUSHES] [ERRORS %]            30,000 due pushes, a third for each provider; 5 in 100 answers an error
//   tests/notifier/by_hand.sh BUILD bench.mjs outage [SECONDS] [PROVIDER] [KIND]    what the others notice while one is away: silent, refused or errors
//   tests/notifier/by_hand.sh BUILD bench.mjs latency [MESSAGES A SECOND] [SECONDS] from the commit to the acceptance, beyond the grace period
//   tests/notifier/by_hand.sh BUILD bench.mjs cost [SECONDS]                        what storing a message pays, with and without queue and notifier
//   tests/notifier/by_hand.sh BUILD bench.mjs scale [DEVICES] [CONVERSATIONS] [DUE] how long a claim, a settlement and a look take in large tables
import { execFile, execFileSync } from 'node:child_process';
import fs from 'node:fs';
import { promisify } from 'node:util';
import { ApnsStub, apnsError } from './apns_stub.mjs';
import { FcmStub, fcmError } from './fcm_stub.mjs';
import { Session, System, until } from './system.mjs';
import { Browser, WebPushStub } from './webpush_stub.mjs';

const PROVIDERS = ['fcm', 'apns', 'webpush'];
const FIRST = 100000; // of users, devices and conversations; this one sends
const system = await System.start();
const sleep = (ms) => new Promise((resolve) => setTimeout(resolve, ms));
const median = (list) => [...list].sort((a, b) => a - b)[Math.floor(list.length / 2)];
const print = (what) => console.log(JSON.stringify(what));

// ---- stubs

const ok = { fcm: { status: 200, headers: {}, body: '{"name":"x"}' }, apns: { status: 200, headers: {} }, webpush: { status: 201, headers: {} } };
const again = { 'retry-after': '1' };
const kinds = {
  fcm: [{ status: 500, headers: {}, body: '' }, fcmError(503, 'UNAVAILABLE', { headers: again }), { reset: true }, { status: 502, headers: {}, body: '<html>' }],
  apns: [apnsError(500, 'InternalServerError'), { ...apnsError(503, 'ServiceUnavailable'), headers: again }, { reset: true }, { ...apnsError(429, 'TooManyRequests'), headers: again }],
  webpush: [{ status: 500, headers: {} }, { status: 429, headers: again }, { reset: true }, { status: 503, headers: again }],
};
const stubs = {}, taken = {}, away = {};

async function listen(errors = 0) {
  let n = 0;
  const take = (name) => function (request, body) {
    if (request.url === '/token') return FcmStub.prototype.take.call(this, request, body);
    if (away[name]) return away[name];
    const session = request.stream.session;
    if (name === 'apns' && session && !session.wide) { session.wide = true; session.settings({ maxConcurrentStreams: 500 }); }
    if (++n % 100 < errors) return kinds[name][Math.floor(n / 100) % 4];
    taken[name]++;
    return ok[name];
  };
  stubs.fcm = new FcmStub(system.tls(), { key: fs.readFileSync(system.file('google.pub')) });
  stubs.apns = new ApnsStub(system.tls(), { key: fs.readFileSync(system.file('apns.pub')) });
  stubs.webpush = new WebPushStub(system.tls());
  for (const name of PROVIDERS) {
    taken[name] = 0;
    stubs[name].take = take(name);
    await stubs[name].listen();
  }
}

function start(general = 'grace = 0\npoll = 50ms\n', options = {}) {
  const notifier = system.notifier(`${general}listen = 127.0.0.1:0\n${PROVIDERS.map((name) => system.section(name, name, stubs[name], options[name])).join('')}`);
  notifier.cpu = () => {
    const field = fs.readFileSync(`/proc/${notifier.pid}/stat`, 'utf8').split(') ')[1].split(' ');
    return (Number(field[11]) + Number(field[12])) * 10; // ms
  };
  notifier.rss = () => Math.round(Number(/VmHWM:\s+(\d+)/.exec(fs.readFileSync(`/proc/${notifier.pid}/status`, 'utf8'))[1]) / 1024);
  return notifier;
}

// ---- rows

// Devices FIRST+1.., each of a user of its own; provider(i) in SQL. 50 of them in a conversation, whose sender is FIRST.
async function people(count, size = 50, provider = `(ARRAY['webpush', 'fcm', 'apns'])[1 + i % 3]`) {
  const subscription = JSON.stringify(new Browser().subscription(`${stubs.webpush?.origin ?? 'https://push.example.org'}/push/x`));
  await system.sql(`INSERT INTO chat.users (id, display_name) SELECT i, 'Person ' || i FROM generate_series(${FIRST}, ${FIRST + count}) i;
    INSERT INTO chat.devices (id, user_id) SELECT i, i FROM generate_series(${FIRST + 1}, ${FIRST + count}) i;
    INSERT INTO chat.push_targets (device_id, provider, app, token, subscription) SELECT i, p, p, CASE WHEN p <> 'webpush' THEN lpad(to_hex(i), 64, '0') END, CASE WHEN p = 'webpush' THEN jsonb_set('${subscription}', '{endpoint}', to_jsonb('${stubs.webpush?.origin ?? 'https://push.example.org'}/push/' || i)) END
      FROM generate_series(${FIRST + 1}, ${FIRST + count}) i, LATERAL (SELECT ${provider} AS p) t;
    INSERT INTO chat.conversations (id, type, name) SELECT ${FIRST} + i, 'group', 'Group ' || i FROM generate_series(1, ${Math.ceil(count / size)}) i;
    INSERT INTO chat.conversation_participants (conversation_id, user_id) SELECT DISTINCT ${FIRST + 1} + (i - ${FIRST + 1}) / ${size}, who FROM generate_series(${FIRST + 1}, ${FIRST + count}) i, LATERAL (VALUES (i), (${FIRST})) v (who);
    ANALYZE`);
  return Math.ceil(count / size);
}

// A message from FIRST into each of the conversations with these numbers.
async function send(first, last) {
  for (let from = first; from <= last; from += 200)
    await system.sql(`SELECT count(*) FROM (SELECT array_agg(${FIRST}::bigint + i) AS c, count(*)::int AS n FROM generate_series(${from}, ${Math.min(from + 199, last)}) i) b,
      LATERAL chat.append_messages(gen_random_uuid(), '{}', '{}', '{}', b.c, array_fill(${FIRST}::bigint, ARRAY[n]), array_fill(0::bigint, ARRAY[n]), ARRAY(SELECT gen_random_uuid() FROM generate_series(1, n)), array_fill(gen_random_uuid(), ARRAY[n]),
      array_fill('text'::text, ARRAY[n]), array_fill('hello'::text, ARRAY[n]), array_fill(NULL::bigint, ARRAY[n]), array_fill(NULL::bigint, ARRAY[n]), array_fill(NULL::jsonb, ARRAY[n]), array_fill(now(), ARRAY[n]), array_fill(NULL::timestamptz, ARRAY[n]))`);
}
// A message for pgbench, into one of the first `conversations`; `batch` of them in one call.
const script = (conversations, batch) => {
  const all = (value, kind) => `array_fill(${value}::${kind}, ARRAY[${batch}])`;
  return `${Array.from({ length: batch }, (_, i) => `\\set c${i} random(1, ${conversations})`).join('\n')}
SELECT count(*) FROM chat.append_messages(gen_random_uuid(), '{}', '{}', '{}', ARRAY[${Array.from({ length: batch }, (_, i) => `${FIRST} + :c${i}`).join(', ')}]::bigint[], ${all(FIRST, 'bigint')}, ${all(0, 'bigint')},
 ARRAY(SELECT gen_random_uuid() FROM generate_series(1, ${batch})), ${all('gen_random_uuid()', 'uuid')}, ${all(`'text'`, 'text')}, ${all(`'hello'`, 'text')}, ${all('NULL', 'bigint')}, ${all('NULL', 'bigint')}, ${all('NULL', 'jsonb')}, ${all('now()', 'timestamptz')}, ${all('NULL', 'timestamptz')});\n`;
};
async function pgbench(text, ...args) {
  const file = system.file('script.sql'), bin = fs.readdirSync('/usr/lib/postgresql').sort((a, b) => b - a)[0];
  fs.writeFileSync(file, text);
  const { stdout } = await promisify(execFile)(`/usr/lib/postgresql/${bin}/bin/pgbench`, ['-n', '-f', file, ...args.map(String), system.conninfo('postgres')]);
  return { tps: Number(/tps = ([\d.]+)/.exec(stdout)[1]), count: Number(/actually processed: (\d+)/.exec(stdout)[1]) };
}
// CPU seconds of the server's backends that have ended.
const backends = () => {
  const field = fs.readFileSync(`/proc/${system.postgres.pid}/stat`, 'utf8').split(') ')[1].split(' ');
  return (Number(field[13]) + Number(field[14])) / 100;
};
const beginNow = () => system.beginNow();

// ---- what is measured

async function queue(pushes = 30000, errors = 5) {
  const each = Math.floor(pushes / 3);
  await listen(errors);
  const conversations = await people(pushes);
  // The cursor begins now; then the messages; the notifier starts when all are old enough.
  await beginNow();
  await send(1, conversations);
  const notifier = start(), total = () => Object.values(taken).reduce((a, b) => a + b);
  await until('the first push', () => total() > 0);
  const began = Date.now(), cpu = notifier.cpu();
  const done = () => Object.values(taken).reduce((sum, count) => sum + Math.min(count, each), 0);
  let most = 0;
  // The last ones wait for their next try.
  await until(() => JSON.stringify(taken), () => { if (!most && done() >= each * 2.7) most = Date.now(); return done() >= each * 2.97; }, 300000);
  print({ pushes: total(), a_second: Math.round(total() / (Date.now() - began) * 1000), a_second_of_the_first_90_in_100: Math.round(each * 2.7 / (most - began) * 1000), cpu_us_each: Math.round((notifier.cpu() - cpu) * 1000 / total()),
    memory_mb: notifier.rss(), connections_at_once: Object.fromEntries(PROVIDERS.map((name) => [name, stubs[name].most])), connections: Object.fromEntries(PROVIDERS.map((name) => [name, stubs[name].connections])), taken });
}

// Rounds of a message in each conversation of the two others; how long until all are accepted. Before, while and after the one is away with a queue of its own.
async function outage(seconds = 30, victim = 'apns', kind = 'silent') {
  const count = 6000, others = PROVIDERS.filter((name) => name !== victim);
  await listen();
  const each = count / 3, conversations = await people(count, 50, `(ARRAY['${victim}', '${others.join("', '")}'])[1 + (i - ${FIRST + 1}) / ${each}]`), own = conversations / 3;
  await beginNow();
  const notifier = start(undefined, { [victim]: { timeout: '2s' } });
  async function round() {
    const before = others.map((name) => taken[name]), began = Date.now(), cpu = notifier.cpu();
    await send(own + 1, conversations);
    await until(() => JSON.stringify(taken), () => others.every((name, i) => taken[name] >= before[i] + each), 120000);
    return { ms: Date.now() - began, cpu: notifier.cpu() - cpu };
  }
  async function rounds(ms) {
    const list = [];
    for (const end = Date.now() + ms; Date.now() < end || list.length < 5;) list.push(await round());
    return list;
  }
  const figures = (list) => ({ rounds: list.length, ms: median(list.map((each_) => each_.ms)), cpu_ms: median(list.map((each_) => each_.cpu)) });
  await round(); // the first one makes plans, connections and credentials
  await send(1, own);
  await until('the victim to be at work', () => taken[victim] >= each);
  const before = await rounds(seconds * 250);
  if (kind === 'refused') await stubs[victim].down();
  else away[victim] = kind === 'silent' ? { never: true } : { status: 503, headers: {}, body: '<html>' };
  await send(1, own);
  await until('its breaker', async () => (await system.metric(notifier, 'breaker_state', victim)) > 0 || (await system.metric(notifier, 'paused_services', victim)) > 0);
  const during = await rounds(seconds * 1000), waited = taken[victim], back = Date.now();
  if (kind === 'refused') await stubs[victim].listen(stubs[victim].port);
  away[victim] = null;
  await until('the victim to be back', () => taken[victim] >= waited + each, 180000);
  const resumed = Date.now() - back, after = await rounds(seconds * 250);
  const without = figures([...before, ...after]), with_ = figures(during);
  print({ victim, kind, outage_s: seconds, pushes_a_round: each * 2, without, during: with_, slower: Number((with_.ms / without.ms - 1).toFixed(3)), cpu_more: Number((with_.cpu_ms / without.cpu_ms - 1).toFixed(3)), back_after_s: resumed / 1000, accepted_of_the_victims_meanwhile: waited - each });
}

async function latency(rate = 500, seconds = 20) {
  const grace = 3;
  await listen();
  const conversations = await people(20000, 1);
  await beginNow();
  const notifier = start(`grace = ${grace}s\n`), sum = () => Object.values(taken).reduce((a, b) => a + b);
  await system.metric(notifier, 'breaker_state', 'fcm');
  const before = sum(), cpu = notifier.cpu();
  const { count } = await pgbench(script(conversations, 1), '-c', 2, '-R', rate, '-T', seconds);
  await until('the queue to be empty', async () => (await system.value(`SELECT count(*) FROM chat.pushes WHERE state = 'due'`)) === '0' && (await system.value(`SELECT read_to > (SELECT max(committed_at) FROM chat.messages) FROM chat.push_cursor`)) === 't');
  const [, port] = /127\.0\.0\.1:(\d+)/.exec(notifier.output), text = await (await fetch(`http://127.0.0.1:${port}/metrics`)).text();
  const within = (bound) => [...text.matchAll(new RegExp(`latency_seconds_bucket\\{app="\\w+",le="${bound.replace('+', '\\+')}"\\} (\\d+)`, 'g'))].reduce((total, [, n]) => total + Number(n), 0);
  const all = within('+Inf');
  print({ messages: count, pushes: sum() - before, cpu_us_each: Math.round((notifier.cpu() - cpu) * 1000 / (sum() - before)),
    beyond_grace: Object.fromEntries([['0.25s', '3.25'], ['0.5s', '3.5'], ['1s', '4'], ['2s', '5']].map(([name, bound]) => [name, `${(100 * within(bound) / all).toFixed(2)} %`])) });
}

// One client stores as fast as it can: with index, cursor and a notifier that looks, pushes for all; and without any of it. In turns.
async function cost(seconds = 5, batch = 50) {
  await listen();
  const conversations = await people(2000, 2);
  const result = { with: [], without: [] };
  const create = /CREATE INDEX messages_committed_at[^;]*;/.exec(await system.value(`SELECT pg_get_indexdef('chat.messages_committed_at'::regclass) || ';'`))[0];
  const run = async (name) => {
    const cpu = backends(), { tps, count } = await pgbench(script(conversations, batch), '-c', 1, '-T', seconds);
    await until('its backend to be counted', () => backends() > cpu + 0.2);
    result[name].push({ messages_a_second: Math.round(tps * batch), cpu_us: (backends() - cpu) * 1e6 / (count * batch) });
  };
  for (let turn = 0; turn < 4; turn++) {
    await system.sql('DROP INDEX chat.messages_committed_at; DELETE FROM chat.pushes; CHECKPOINT');
    await run('without');
    await system.sql(`${create} DELETE FROM chat.pushes; CHECKPOINT`);
    await beginNow();
    const notifier = start('grace = 3s\n');
    await system.metric(notifier, 'breaker_state', 'fcm');
    await run('with');
    notifier.kill('SIGKILL');
    await notifier.ended;
  }
  const figures = (name) => ({ messages_a_second: median(result[name].map((each) => each.messages_a_second)), cpu_us_of_the_backend: Number(median(result[name].map((each) => each.cpu_us)).toFixed(1)) });
  const without = figures('without'), with_ = figures('with');
  print({ batch, without, with: with_, slower: Number((1 - with_.messages_a_second / without.messages_a_second).toFixed(3)), cpu_more: Number((with_.cpu_us_of_the_backend / without.cpu_us_of_the_backend - 1).toFixed(3)), turns: result });
}

async function scale(devices = 1000000, conversations = 100000, due = 300000) {
  const members = devices / conversations;
  await system.sql(`SET session_replication_role = replica; SET synchronous_commit = off;
    INSERT INTO chat.users (id, display_name) SELECT i, 'Person ' || i FROM generate_series(${FIRST}, ${FIRST + devices}) i;
    INSERT INTO chat.devices (id, user_id) SELECT i, i FROM generate_series(${FIRST + 1}, ${FIRST + devices}) i;
    INSERT INTO chat.push_targets (device_id, provider, app, token) SELECT i, 'fcm', 'fcm', lpad(to_hex(i), 64, '0') FROM generate_series(${FIRST + 1}, ${FIRST + devices}) i;
    INSERT INTO chat.conversations (id, type, name, last_seq, last_ordinal) SELECT ${FIRST} + i, 'group', 'Group ' || i, 10, 10 FROM generate_series(1, ${conversations}) i;
    INSERT INTO chat.conversation_participants (conversation_id, user_id, joined_seq, first_visible_seq) SELECT ${FIRST + 1} + (i - ${FIRST + 1}) / ${members}, i, 0, 1 FROM generate_series(${FIRST + 1}, ${FIRST + devices}) i;
    INSERT INTO chat.participant_watermarks (conversation_id, user_id, delivered_seq, read_seq, read_ordinal) SELECT conversation_id, user_id, 0, 0, 0 FROM chat.conversation_participants WHERE conversation_id > ${FIRST};
    INSERT INTO chat.messages (conversation_id, seq, ordinal, sender_id, client_id, content_hash, type, body, sent_at) SELECT ${FIRST} + c, s, s, ${FIRST}, gen_random_uuid(), gen_random_uuid(), 'text', 'hello', now() FROM generate_series(1, ${conversations}) c, generate_series(1, 10) s;
    INSERT INTO chat.pushes (device_id, conversation_id, user_id, last_seq, since, expires_at, app) SELECT i, ${FIRST + 1} + (i - ${FIRST + 1}) / ${members}, i, 10, now(), now() + interval '1 day', 'fcm' FROM generate_series(${FIRST + 1}, ${FIRST + due}) i ORDER BY hashint8(i);
    RESET session_replication_role`);
  await system.sql('VACUUM ANALYZE');
  const caller = new Session(system.conninfo('postgres')), scans = `SELECT coalesce(sum(seq_scan), 0) FROM pg_stat_user_tables WHERE schemaname = 'chat' AND relname <> 'push_cursor'`;
  const time = async (statement) => Number(/Execution Time: ([\d.]+)/.exec((await caller.value(`SELECT explain FROM pg_temp.timed($q$${statement}$q$) explain`)) ?? '')?.[1]);
  await caller.value(`CREATE FUNCTION pg_temp.timed(statement text) RETURNS text LANGUAGE plpgsql AS $f$ DECLARE began timestamptz := clock_timestamp(); BEGIN EXECUTE statement; RETURN 'Execution Time: ' || extract(epoch FROM clock_timestamp() - began) * 1000; END $f$; SELECT 1`);
  const calls = {
    'claim 16': `SELECT count(*) FROM chat.claim_pushes('fcm', 16, 60000, false)`, 'claim 100': `SELECT count(*) FROM chat.claim_pushes('fcm', 100, 60000, false)`, 'claim 100 with badge': `SELECT count(*) FROM chat.claim_pushes('fcm', 100, 60000, true)`,
    'claim and settle 100': `SELECT chat.settle_pushes(array_agg(device_id), array_agg(conversation_id), array_agg(lease), array_agg('accepted'::text), array_agg(seq), array_agg(0::bigint), array_agg(NULL::text), array_agg(0::bigint), array_agg(0::bigint)) FROM chat.claim_pushes('fcm', 100, 60000, false)`,
    'look at the log': `SELECT * FROM chat.find_pushes(0, 86400000)`, 'look at what is shown, 500': `SELECT chat.check_shown('{fcm}', 500)`,
  };
  const before = Number(await caller.value(scans));
  for (const [name, statement] of Object.entries(calls)) {
    const times = [];
    for (let i = 0; i < 60; i++) times.push(await time(statement));
    times.splice(0, 10); // the first make the plan and fetch the pages
    times.sort((a, b) => a - b);
    print({ call: name, ms: { median: times[25].toFixed(2), 'p90': times[45].toFixed(2), most: times[49].toFixed(2) } });
  }
  await caller.end();
  print({ devices, conversations, due, tables_read_whole: Number(await system.value(scans)) - before });
}

const [what = 'queue', ...args] = process.argv.slice(2);
const measures = { queue, outage, latency, cost, scale };
if (!measures[what]) throw new Error(`no such measure: ${what}`);
try {
  await measures[what](...args.map((each) => (/^\d+$/.test(each) ? Number(each) : each)));
} finally {
  system.kill();
}
process.exit(0);
