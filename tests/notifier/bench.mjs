// bench.mjs - how fast the notifier works off a queue, and what it costs.
//
//   CHAT_NOTIFIER=… CHAT_TEST_TEMPLATE=… node tests/notifier/bench.mjs [PUSHES] [ERRORS %] [DOWN]
//
// PUSHES (30,000) due pushes, a third for each provider, are queued; stubs that check nothing share this machine. ERRORS (5) in a hundred answers are one of each kind that
// is tried again. DOWN: fcm, apns or webpush; its stub accepts connections and never answers. Prints pushes a second, CPU of the notifier for each, its memory, connections.
import fs from 'node:fs';
import { ApnsStub, apnsError } from './apns_stub.mjs';
import { FcmStub, fcmError } from './fcm_stub.mjs';
import { System, until } from './system.mjs';
import { Browser, WebPushStub } from './webpush_stub.mjs';

const pushes = Number(process.argv[2] ?? 30000), errors = Number(process.argv[3] ?? 5), down = process.argv[4] ?? '';
const each = Math.floor(pushes / 3);
const system = await System.start();
const ok = { fcm: { status: 200, headers: {}, body: '{"name":"x"}' }, apns: { status: 200, headers: {} }, webpush: { status: 201, headers: {} } };
const kinds = {
  fcm: [{ status: 500, headers: {}, body: '' }, fcmError(503, 'UNAVAILABLE', { headers: { 'retry-after': '1' } }), { reset: true }, { status: 502, headers: {}, body: '<html>' }],
  apns: [apnsError(500, 'InternalServerError'), { ...apnsError(503, 'ServiceUnavailable'), headers: { 'retry-after': '1' } }, { reset: true }, { ...apnsError(429, 'TooManyRequests'), headers: { 'retry-after': '1' } }],
  webpush: [{ status: 500, headers: {} }, { status: 429, headers: { 'retry-after': '1' } }, { reset: true }, { status: 503, headers: { 'retry-after': '1' } }],
};
const taken = { fcm: 0, apns: 0, webpush: 0 };
let n = 0;
const take = (name) => function (request, body) {
  if (request.url === '/token') return FcmStub.prototype.take.call(this, request, body);
  if (name === down) return null;
  const session = request.stream.session;
  if (name === 'apns' && session && !session.wide) { session.wide = true; session.settings({ maxConcurrentStreams: 500 }); }
  if (++n % 100 < errors) return kinds[name][Math.floor(n / 100) % 4];
  taken[name]++;
  return ok[name];
};
const fcm = new FcmStub(system.tls(), { key: fs.readFileSync(system.file('google.pub')) });
const apns = new ApnsStub(system.tls(), { key: fs.readFileSync(system.file('apns.pub')) });
const web = new WebPushStub(system.tls());
for (const [name, stub] of Object.entries({ fcm, apns, webpush: web })) { stub.take = take(name); await stub.listen(); }

const subscription = JSON.stringify(new Browser().subscription(`${web.origin}/push/x`));
await system.sql(`INSERT INTO chat.users (id, display_name) SELECT i, 'Person ' || i FROM generate_series(100000, ${100000 + pushes}) i;
  INSERT INTO chat.devices (id, user_id) SELECT i, i FROM generate_series(100001, ${100000 + pushes}) i;
  INSERT INTO chat.push_targets (device_id, provider, app, token, subscription) SELECT i, CASE i % 3 WHEN 0 THEN 'fcm' WHEN 1 THEN 'apns' ELSE 'webpush' END, CASE i % 3 WHEN 0 THEN 'android' WHEN 1 THEN 'ios' ELSE 'web' END,
    CASE WHEN i % 3 < 2 THEN lpad(to_hex(i), 64, '0') END, CASE WHEN i % 3 = 2 THEN '${subscription}'::jsonb END FROM generate_series(100001, ${100000 + pushes}) i;
  INSERT INTO chat.conversations (id, type, name) SELECT 100000 + i, 'group', 'Group ' || i FROM generate_series(1, ${Math.ceil(pushes / 50)}) i;
  INSERT INTO chat.conversation_participants (conversation_id, user_id) SELECT DISTINCT 100001 + (i - 100001) / 50, who FROM generate_series(100001, ${100000 + pushes}) i, LATERAL (VALUES (i), (100000)) v (who);
  ANALYZE`);
const config = `grace = 0
listen = 127.0.0.1:0
poll = 50ms
[android]
provider = fcm
service_account = ${system.serviceAccount(`${fcm.origin}/token`)}
url = ${fcm.origin}
ca_file = ${system.file('ca.pem')}
[ios]
provider = apns
url = ${apns.origin}
ca_file = ${system.file('ca.pem')}
topic = org.example.chat
key_file = ${system.file('apns.p8')}
key_id = KEYID12345
team_id = TEAMID1234
[web]
provider = webpush
key_file = ${system.file('vapid.pem')}
subject = mailto:ops@example.org
ca_file = ${system.file('ca.pem')}
any_host = on
`;
// The cursor begins now; then the messages; the notifier starts when all are old enough.
await system.sql('SELECT * FROM chat.find_pushes(0, 86400000)');
for (let first = 1; first <= Math.ceil(pushes / 50); first += 200)
  await system.sql(`SELECT ${'count(*)'} FROM (SELECT array_agg(100000::bigint + i) AS c, count(*)::int AS n FROM generate_series(${first}, ${Math.min(first + 199, Math.ceil(pushes / 50))}) i) b,
    LATERAL chat.append_messages(gen_random_uuid(), '{}', '{}', '{}', b.c, array_fill(100000::bigint, ARRAY[n]), array_fill(0::bigint, ARRAY[n]), ARRAY(SELECT gen_random_uuid() FROM generate_series(1, n)), array_fill(gen_random_uuid(), ARRAY[n]),
    array_fill('text'::text, ARRAY[n]), array_fill('hello'::text, ARRAY[n]), array_fill(NULL::bigint, ARRAY[n]), array_fill(NULL::bigint, ARRAY[n]), array_fill(NULL::jsonb, ARRAY[n]), array_fill(now(), ARRAY[n]), array_fill(NULL::timestamptz, ARRAY[n]))`);

const notifier = system.notifier(config);
const cpu = () => { const field = fs.readFileSync(`/proc/${notifier.pid}/stat`, 'utf8').split(') ')[1].split(' '); return (Number(field[11]) + Number(field[12])) * 10; };
const rss = () => Number(/VmHWM:\s+(\d+)/.exec(fs.readFileSync(`/proc/${notifier.pid}/status`, 'utf8'))[1]) / 1024;
await until('the first push', () => taken.fcm + taken.apns + taken.webpush > 0);
const start = Date.now(), cpu0 = cpu();
const wanted = down ? each * 2 : each * 3;
const done = () => Object.entries(taken).reduce((sum, [name, count]) => sum + (name === down ? 0 : Math.min(count, each)), 0);
let half = 0;
await until(() => JSON.stringify(taken), () => { if (!half && done() >= wanted * 0.9) half = Date.now(); return done() >= wanted * 0.99; }, 180000);
const elapsed = Date.now() - start, spent = cpu() - cpu0, total = taken.fcm + taken.apns + taken.webpush;
console.log(JSON.stringify({ pushes: total, seconds: elapsed / 1000, per_s: Math.round(total / elapsed * 1000), per_s_first_90: half ? Math.round(wanted * 0.9 / (half - start) * 1000) : 0, cpu_us_per_push: Math.round(spent * 1000 / total), rss_mb: Math.round(rss()),
  connections: { fcm: fcm.connections, apns: apns.connections, webpush: web.connections }, at_once: { fcm: fcm.most, apns: apns.most, webpush: web.most }, taken }));
const port = /127\.0\.0\.1:(\d+)/.exec(notifier.output)[1];
const metrics = await (await fetch(`http://127.0.0.1:${port}/metrics`)).text();
console.log(metrics.split('\n').filter((line) => /^chat_notifier_(stale|retried|refused)_total/.test(line)).join('\n'));
if (process.env.CHAT_BENCH_LOG) console.log(notifier.output.slice(-1000), fs.readFileSync(system.file('postgres.log'), 'utf8').match(/duration: .*/g)?.map((line) => line.slice(0, 150)).slice(-60).join('\n'));
notifier.kill('SIGKILL');
await notifier.ended;
await system.stop();
process.exit(0);
