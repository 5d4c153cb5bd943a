// kill -9, at random: of the notifier, of PostgreSQL, and of the push services, each a process of its own, while messages come and are read.
//
//   tests/notifier/by_hand.sh BUILD kills.test.mjs          3 rounds of a random seed, which is printed
//   CHAT_KILL_ROUNDS=50 CHAT_KILL_SEED=1 tests/notifier/by_hand.sh BUILD kills.test.mjs
//
// Afterwards: every push that was due was accepted, every repeat carried the same ids, nothing was sent of what had been read before it was claimed, and no
// row is stuck. With rounds of one's own choice, times are judged as well: nothing was sent of what had been read 200 ms before.
import assert from 'node:assert';
import { spawn } from 'node:child_process';
import fs from 'node:fs';
import path from 'node:path';
import { after, before, test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { DEADLINE_MS, Session, System, until } from './system.mjs';
import { Browser } from './webpush_stub.mjs';

const byHand = process.env.CHAT_KILL_ROUNDS !== undefined;
const rounds = Number(process.env.CHAT_KILL_ROUNDS ?? 3), seed = Number(process.env.CHAT_KILL_SEED ?? Math.floor(Math.random() * 1e9));
let state = seed;
// mulberry32
const random = (n) => {
  state = (state + 0x6d2b79f5) | 0;
  let t = Math.imul(state ^ (state >>> 15), 1 | state);
  t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t;
  return ((t ^ (t >>> 14)) >>> 0) % n;
};
const CONVERSATIONS = 6, MEMBERS = 7, FIRST = 700, LOADS = 3;
const KINDS = ['webpush', 'apns', 'fcm'];
const READ_MS = 200; // so long before a request a read must have been committed to stop it
const sleep = (ms) => new Promise((resolve) => setTimeout(resolve, ms));

let system, notifier, config;
const services = {}; // by kind: {file, port, child, log}
const reads = [];    // {conversation, user, seq, at}: committed by then
const member = (conversation, i) => conversation * 100 + i;

async function startService(kind) {
  const service = services[kind];
  service.child = spawn(process.execPath, [path.join(path.dirname(fileURLToPath(import.meta.url)), 'stub_process.mjs'), service.file, String(service.port)], { stdio: ['ignore', 'pipe', 'inherit'] });
  system.processes.add(service.child);
  service.port = await new Promise((resolve, reject) => {
    service.child.stdout.once('data', (data) => resolve(Number(data)));
    service.child.once('exit', () => reject(new Error(`the stub of ${kind} has ended`)));
  });
  service.origin = `https://127.0.0.1:${service.port}`;
}

async function killService(kind) {
  const { child } = services[kind], gone = new Promise((resolve) => child.once('exit', resolve));
  child.kill('SIGKILL');
  await gone;
  system.processes.delete(child);
}

before(async () => {
  system = await System.start();
  // A claim sees at least what was committed when its transaction began.
  await system.sql(`CREATE TABLE public.claims (device bigint, seq bigint, at timestamptz);
    CREATE FUNCTION public.note_claim() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER AS 'BEGIN INSERT INTO public.claims VALUES (NEW.device_id, NEW.last_seq, now()); RETURN NULL; END';
    CREATE TRIGGER note_claim AFTER UPDATE OF lease ON chat.pushes FOR EACH ROW EXECUTE FUNCTION public.note_claim()`);
  const tls = Object.fromEntries(Object.entries(system.tls()).map(([name, pem]) => [name, pem.toString()]));
  const keys = { apns: 'apns.pub', fcm: 'google.pub' }, devices = [], browsers = {};
  for (let conversation = FIRST; conversation < FIRST + CONVERSATIONS; conversation++) {
    await system.people(MEMBERS, conversation, member(conversation, 0));
    for (let i = 1; i < MEMBERS; i++) devices.push({ id: member(conversation, i), kind: KINDS[i % KINDS.length], browser: new Browser() });
  }
  for (const { id, browser } of devices) browsers[`/push/${id}`] = browser.keys();
  for (const kind of KINDS) {
    services[kind] = { file: system.file(`${kind}.json`), log: system.file(`${kind}.log`), port: 0 };
    fs.writeFileSync(services[kind].file, JSON.stringify({ kind, tls, browsers: kind === 'webpush' ? browsers : {}, log: services[kind].log,
      key: keys[kind] && fs.readFileSync(system.file(keys[kind]), 'utf8') }));
    await startService(kind);
  }
  for (const { id, kind, browser } of devices) {
    const target = kind === 'webpush' ? browser.subscription(`${services.webpush.origin}/push/${id}`) : kind === 'apns' ? id.toString(16).padStart(64, '0') : String(id);
    await system.device(id, id, kind, kind, target);
  }
  config = `grace = 100ms\npoll = 20ms\nlease = 8s\n${KINDS.map((kind) => system.section(kind, kind, services[kind], { timeout: '4s', ...(kind === 'webpush' ? {} : { clear: 'off' }) })).join('')}`;
});
after(async () => {
  if (notifier) await system.end(notifier);
  await system.stop();
});

// Sends, and reads as another, until it is over; the database may go away under it.
async function load(over) {
  let session = new Session(system.conninfo('postgres'));
  while (!over()) {
    const conversation = FIRST + random(CONVERSATIONS);
    try {
      if (random(3)) {
        await session.value(system.sending(conversation, member(conversation, 0)));
      } else {
        const user = member(conversation, 1 + random(MEMBERS - 1));
        const seq = Number(await session.value(`SELECT last_seq FROM chat.conversations WHERE id = ${conversation}`));
        await session.value(system.marking(conversation, user, 0, { read: seq }));
        reads.push({ conversation, user, seq, at: Date.now() });
      }
      await sleep(random(40));
    } catch {
      await session.end();
      await sleep(20);
      session = new Session(system.conninfo('postgres'));
    }
  }
  await session.end();
}

async function kill() {
  const victim = random(4);
  if (victim <= 1) {
    notifier.kill('SIGKILL');
    await notifier.ended;
    await sleep(random(300));
    notifier = system.notifier(config);
  } else if (victim === 2) {
    await system.killPostgres();
    await sleep(random(300));
    await system.startPostgres();
  } else {
    const kind = KINDS[random(KINDS.length)];
    await killService(kind);
    await sleep(random(300));
    await startService(kind);
  }
  return ['notifier', 'notifier', 'PostgreSQL', 'push service'][victim];
}

test(`${rounds} kills under load, seed ${seed}`, async () => {
  const killed = {};
  let over = false;
  notifier = system.notifier(config);
  const loads = Array.from({ length: LOADS }, () => load(() => over));
  for (let round = 0; round < rounds; round++) {
    await sleep(300 + random(900));
    const victim = await kill();
    killed[victim] = (killed[victim] ?? 0) + 1;
  }
  over = true;
  await Promise.all(loads);
  await until('an empty queue', async () => {
    const [[due, unseen]] = await system.sql(`SELECT count(*) FILTER (WHERE state <> 'shown'), (SELECT max(committed_at) > (SELECT read_to FROM chat.push_cursor) FROM chat.messages) OR (SELECT again_xid IS NOT NULL FROM chat.push_cursor) FROM chat.pushes`);
    return due === '0' && unseen === 'f';
  }, 3 * DEADLINE_MS);

  const lines = KINDS.flatMap((kind) => fs.readFileSync(services[kind].log, 'utf8').split('\n').filter(Boolean).map((line) => ({ kind, ...JSON.parse(line) })));
  assert.deepEqual(lines.filter((line) => line.wrong), []);
  const told = new Map(), ids = new Map(), seen = new Set();
  let repeats = 0;
  for (const push of lines) {
    told.set(push.device, Math.max(told.get(push.device) ?? 0, push.seq));
    // Apple's name a push; the others' name what it replaces.
    const key = push.kind === 'apns' ? `${push.device} ${push.seq}` : push.device;
    assert.equal(ids.get(key) ?? push.id, push.id, 'a repeat has the same id');
    ids.set(key, push.id);
    repeats += seen.has(`${push.device} ${push.seq}`) ? 1 : 0;
    seen.add(`${push.device} ${push.seq}`);
  }
  const members = await system.sql(`SELECT t.device_id, c.last_seq, w.read_seq FROM chat.push_targets t JOIN chat.participant_watermarks w ON w.user_id = t.device_id JOIN chat.conversations c ON c.id = w.conversation_id WHERE c.id >= ${FIRST} ORDER BY 1`);
  for (const [device, last, read] of members) {
    assert.ok(Number(read) === Number(last) || told.get(Number(device)) === Number(last), `device ${device}: told up to ${told.get(Number(device))}, read up to ${read} of ${last}`);
  }
  const claims = new Map();
  for (const [device, seq, at] of await system.sql(`SELECT device, seq, 1000 * extract(epoch FROM min(at)) FROM public.claims GROUP BY 1, 2`)) claims.set(`${device} ${seq}`, Number(at));
  for (const push of lines) {
    const read = Math.min(...reads.filter((each) => each.user === push.device && each.seq >= push.seq).map((each) => each.at));
    const claimed = claims.get(`${push.device} ${push.seq}`);
    assert.ok(claimed <= read + 1, `claimed ${claimed - read} ms after it was read: ${JSON.stringify(push)}`); // whole milliseconds
  }
  let latest = -Infinity, which = null;
  for (const read of reads) {
    for (const push of lines) {
      if (push.device !== read.user || push.seq > read.seq || push.at - push.lag - read.at <= latest) continue;
      latest = push.at - push.lag - read.at;
      which = push;
    }
  }
  assert.ok(!byHand || latest < READ_MS, `pushed ${latest} ms after it was read: ${JSON.stringify(which)}`);
  assert.equal(await system.value(`SELECT count(*) FROM chat.pushes WHERE state <> 'shown'`), '0');
  const messages = await system.value(`SELECT sum(last_seq) FROM chat.conversations WHERE id >= ${FIRST}`);
  console.log(`# killed: ${JSON.stringify(killed)}; ${messages} messages, ${reads.length} reads, ${lines.length} pushes, ${repeats} repeats, the latest ${latest} ms after it was read`);
}, { timeout: 900000 });
