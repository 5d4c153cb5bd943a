// kill -9, at random: of the notifier, of PostgreSQL, and of the push services, while messages come and are read.
//
//   CHAT_KILL_ROUNDS=50 CHAT_KILL_SEED=1 ctest -R notifier/kills     (3 rounds of a random seed otherwise; the seed is printed)
//
// Afterwards: every push that was due was accepted, every repeat carried the same ids, nothing was sent of what had been read 200 ms before, and
// no row is stuck.
import assert from 'node:assert';
import fs from 'node:fs';
import { monitorEventLoopDelay } from 'node:perf_hooks';
import { after, before, test } from 'node:test';
import { ApnsStub } from './apns_stub.mjs';
import { System, until } from './system.mjs';
import { WebPushStub } from './webpush_stub.mjs';

const rounds = Number(process.env.CHAT_KILL_ROUNDS ?? 3), seed = Number(process.env.CHAT_KILL_SEED ?? Math.floor(Math.random() * 1e9));
let state = seed;
// mulberry32
const random = (n) => {
  state = (state + 0x6d2b79f5) | 0;
  let t = Math.imul(state ^ (state >>> 15), 1 | state);
  t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t;
  return ((t ^ (t >>> 14)) >>> 0) % n;
};
const CONVERSATIONS = 6, MEMBERS = 6, FIRST = 700;
const sleep = (ms) => new Promise((resolve) => setTimeout(resolve, ms));

let system, web, apns, notifier, config;
const reads = []; // {conversation, user, seq, at}: committed by then
const browsers = new Map(); // path -> subscription's owner
const token = (device) => device.toString(16).padStart(64, '0');
const member = (conversation, i) => conversation * 100 + i;

before(async () => {
  system = await System.start();
  web = await new WebPushStub(system.tls()).listen();
  apns = await new ApnsStub(system.tls(), { key: fs.readFileSync(system.file('apns.pub'), 'utf8') }).listen();
  config = `grace = 100ms\npoll = 20ms\nlease = 3s
[web]
provider = webpush
key_file = ${system.file('vapid.pem')}
subject = mailto:ops@example.org
ca_file = ${system.file('ca.pem')}
timeout = 1s
any_host = on
[ios]
provider = apns
url = ${apns.origin}
ca_file = ${system.file('ca.pem')}
topic = org.example.chat
key_file = ${system.file('apns.p8')}
key_id = KEYID12345
team_id = TEAMID1234
timeout = 1s
clear = off
`;
  for (let conversation = FIRST; conversation < FIRST + CONVERSATIONS; conversation++) {
    await system.people(MEMBERS, conversation, member(conversation, 0));
    for (let i = 1; i < MEMBERS; i++) {
      const device = member(conversation, i);
      await (i % 2 ? system.device(device, device, 'webpush', 'web', web.subscribe(String(device))) : system.device(device, device, 'apns', 'ios', token(device)));
    }
  }
});
after(async () => {
  await system.end(notifier);
  await web.close();
  await apns.close();
  await system.stop();
});

async function load(until_) {
  while (!until_()) {
    const conversation = FIRST + random(CONVERSATIONS);
    try {
      if (random(3)) {
        await system.send(conversation, member(conversation, 0));
      } else {
        const user = member(conversation, 1 + random(MEMBERS - 1));
        const seq = Number(await system.value(`SELECT last_seq FROM chat.conversations WHERE id = ${conversation}`));
        await system.mark(conversation, user, 0, { read: seq });
        reads.push({ conversation, user, seq, at: Date.now() });
      }
    } catch { await sleep(20); } // the database is away
  }
}

async function kill() {
  const victim = random(4);
  if (victim === 0 || victim === 1) {
    notifier.kill('SIGKILL');
    await notifier.ended;
    await sleep(random(300));
    notifier = system.notifier(config);
  } else if (victim === 2) {
    await system.killPostgres();
    await sleep(random(300));
    await system.startPostgres();
  } else {
    const stub = random(2) ? web : apns, port = stub.port;
    await stub.down();
    await sleep(random(300));
    await stub.listen(port);
  }
  return ['the notifier', 'the notifier', 'PostgreSQL', 'a push service'][victim];
}

test(`${rounds} kills under load, seed ${seed}`, async () => {
  const lag = monitorEventLoopDelay({ resolution: 10 });
  let over = false;
  lag.enable();
  notifier = system.notifier(config);
  const loads = [0, 1, 2].map(() => load(() => over));
  for (let round = 0; round < rounds; round++) {
    await sleep(300 + random(900));
    await kill();
  }
  over = true;
  await Promise.all(loads);
  await until('an empty queue', async () => {
    const [[due, unseen]] = await system.sql(`SELECT count(*) FILTER (WHERE state <> 'shown'), (SELECT extract(epoch FROM max(committed_at) - (SELECT read_to FROM chat.push_cursor)) > 0 FROM chat.messages) FROM chat.pushes`);
    return due === '0' && unseen === 'f';
  }, 90000);
  lag.disable();

  const pushes = [...web.pushes.map((push) => ({ device: Number(push.name), at: push.at, conversation: push.json.conversation, seq: push.json.seq, id: push.topic, kind: 'web' })),
    ...apns.pushes.map((push) => ({ device: parseInt(push.name, 16), at: push.at, conversation: push.json.conversation, seq: push.json.seq, id: push.id, kind: 'apns' }))];
  const told = new Map(), ids = new Map();
  for (const push of pushes) {
    told.set(push.device, Math.max(told.get(push.device) ?? 0, push.seq));
    const key = push.kind === 'web' ? `${push.device}` : `${push.device} ${push.seq}`;
    assert.equal(ids.get(key) ?? push.id, push.id, 'a repeat has the same id');
    ids.set(key, push.id);
  }
  const members = await system.sql(`SELECT t.device_id, c.last_seq, w.read_seq FROM chat.push_targets t JOIN chat.participant_watermarks w ON w.user_id = t.device_id JOIN chat.conversations c ON c.id = w.conversation_id WHERE c.id >= ${FIRST} ORDER BY 1`);
  for (const [device, last, read] of members) {
    assert.ok(Number(read) === Number(last) || told.get(Number(device)) === Number(last), `device ${device}: told up to ${told.get(Number(device))}, read up to ${read} of ${last}`);
  }
  // A stub that was late in looking at its socket saw the push later than it was written.
  const slack = 200 + lag.max / 1e6;
  for (const read of reads) {
    const late = pushes.find((push) => push.conversation === read.conversation && push.device === read.user && push.seq <= read.seq && push.at > read.at + slack);
    assert.equal(late, undefined, `pushed ${late && late.at - read.at} ms after it was read`);
  }
  assert.deepEqual([web.wrong, apns.wrong], [[], []]);
  assert.equal(await system.value(`SELECT count(*) FROM chat.pushes WHERE state <> 'shown'`), '0');
  console.log(`# ${pushes.length} pushes of ${await system.value(`SELECT sum(last_seq) FROM chat.conversations WHERE id >= ${FIRST}`)} messages, ${reads.length} reads, lag ${Math.round(lag.max / 1e6)} ms, repeats ${pushes.length - new Set(pushes.map((push) => `${push.device} ${push.seq}`)).size}`);
}, { timeout: 600000 });
