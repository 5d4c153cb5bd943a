// The notifier as a service among services: credentials that go stale, push services that fail and come back, several notifiers on one database, a
// reload and a stop while answers are awaited. Each test has notifiers, apps and stubs of its own.
import assert from 'node:assert';
import fs from 'node:fs';
import net from 'node:net';
import { after, before, describe, test } from 'node:test';
import { ApnsStub, apnsError } from './apns_stub.mjs';
import { FcmStub } from './fcm_stub.mjs';
import { DEADLINE_MS, Session, System, until } from './system.mjs';
import { WebPushStub } from './webpush_stub.mjs';

const GENERAL = 'grace = 0\npoll = 20ms\nlisten = 127.0.0.1:0\n', PATIENT = `${GENERAL}lease = 10min\n`;
let system, conversation = 1000;
const stubs = [], notifiers = new Set();
const pem = (name) => fs.readFileSync(system.file(name), 'utf8');
const token = (n) => n.toString(16).padStart(64, '0');

before(async () => { system = await System.start(); });
after(async () => {
  for (const notifier of notifiers) await system.end(notifier);
  assert.deepEqual(stubs.flatMap((stub) => stub.wrong), []);
  for (const stub of stubs) await stub.close();
  await system.stop();
});

async function listen(stub) {
  stubs.push(await stub.listen());
  return stub;
}
const fcmStub = (options) => listen(new FcmStub(system.tls(), { key: pem('google.pub'), ...options }));
const apnsStub = (options) => listen(new ApnsStub(system.tls(), { key: pem('apns.pub'), ...options }));
const webPushStub = (options) => listen(new WebPushStub(system.tls(), options));

function start(text) {
  const notifier = system.notifier(null, { file: system.configure(text, `${conversation++}.conf`) });
  notifiers.add(notifier);
  notifier.ended.then(() => notifiers.delete(notifier));
  return notifier;
}
const crowd = (count, provider, app, target) => system.crowd(conversation++, count, provider, app, target);
const accepted = (group, deadline_ms = DEADLINE_MS) => until('all to be accepted', async () => (await system.count(group.conversation, 'shown')) === group.count, deadline_ms);
const recovered = (group) => accepted(group, 3 * DEADLINE_MS); // a breaker is open for 5 s, 10, 20, 40, 60
const breaker = (notifier, app, state) => until(`breaker state ${state} of ${app}`, async () => (await system.metric(notifier, 'breaker_state', app)) === state);

describe('credentials', { concurrency: 6 }, () => {
  test('FCM: an access token is fetched anew before it ends', async () => {
    const stub = await fcmStub({ lifetime_s: 2 });
    start(GENERAL + system.section('renewed', 'fcm', stub));
    const group = await crowd(1, 'fcm', 'renewed', () => 'renewed');
    await until('a third token', async () => { await system.send(group.conversation, group.sender); return stub.fetched >= 3; });
    await accepted(group);
  });

  test('FCM: an access token that was good and is refused is replaced, and the push goes out', async () => {
    const stub = await fcmStub();
    start(GENERAL + system.section('revoked', 'fcm', stub));
    const group = await crowd(1, 'fcm', 'revoked', () => 'revoked');
    await system.send(group.conversation, group.sender);
    await accepted(group);
    stub.tokens.clear();
    const seq = await system.send(group.conversation, group.sender);
    await until('the push', () => stub.of('revoked').some((push) => push.message.data.seq === String(seq)));
    assert.equal(stub.fetched, 2);
  });

  test('FCM: every access token refused: the app is paused, with a word for whoever runs this, and goes on when that ends', async () => {
    const stub = await fcmStub();
    stub.refusing = true;
    const notifier = start(GENERAL + system.section('refused', 'fcm', stub));
    const group = await crowd(30, 'fcm', 'refused', (i) => `refused-${i}`);
    await system.send(group.conversation, group.sender);
    await breaker(notifier, 'refused', 1);
    await until('the reason', () => /app refused \(fcm\): the configuration is refused; check keys, ids and topic: UNAUTHENTICATED/.test(notifier.output));
    assert.equal(await system.count(group.conversation, 'due'), 30);
    stub.refusing = false;
    await recovered(group);
    await breaker(notifier, 'refused', 0);
  });

  test('FCM: no access token to be had: nothing is lost', async () => {
    const stub = await fcmStub();
    let asked = 0;
    stub.tokenAnswer = () => (++asked > 1 ? null : { status: 503, headers: { 'retry-after': '1' }, body: 'busy' });
    const notifier = start(GENERAL + system.section('tokenless', 'fcm', stub));
    const group = await crowd(1, 'fcm', 'tokenless', () => 'tokenless');
    await system.send(group.conversation, group.sender);
    await accepted(group);
    await until('the reason', () => /app tokenless \(fcm\): no access token: HTTP 503/.test(notifier.output));
  });

  test('APNs: a provider token that has expired is made anew, and the repeat has the same id', async () => {
    // Apple's clock says so of the first one that it has accepted before.
    const known = new Set();
    let refused = null;
    const stub = await apnsStub({ answer: (push) => {
      if (refused || !known.has(push.headers.authorization)) { known.add(push.headers.authorization); return null; }
      refused = push;
      return apnsError(403, 'ExpiredProviderToken');
    } });
    start(GENERAL + system.section('expired', 'apns', stub));
    const group = await crowd(1, 'apns', 'expired', () => token(1));
    for (let seq = 1; !refused; seq++) {
      await system.send(group.conversation, group.sender);
      await until('its acceptance', async () => (await system.value(`SELECT sent_seq FROM chat.pushes WHERE conversation_id = ${group.conversation}`)) === String(seq));
    }
    const tries = stub.of(token(1)).filter((push) => push.json.seq === refused.json.seq);
    assert.equal(tries.length, 2);
    assert.equal(tries[0].id, tries[1].id);
    assert.notEqual(tries[0].headers.authorization, tries[1].headers.authorization);
    for (const { iat } of stub.providerTokens) assert.equal(iat % 2400, 0, 'of the same time of issue for 40 minutes: Apple limits how often that changes');
  });
});

describe('breakers', { concurrency: 3 }, () => {
  test('closed, open, one at a time, closed', async () => {
    let answer = () => ({ status: 500, headers: {}, body: '' }), open_;
    const stub = await fcmStub({ answer: (push) => answer(push) });
    const well = await webPushStub();
    const notifier = start(PATIENT + system.section('broken', 'fcm', stub, { timeout: '120s' }) + system.section('well', 'webpush', well));
    const group = await crowd(60, 'fcm', 'broken', (i) => `broken-${i}`);
    await system.send(group.conversation, group.sender);
    await breaker(notifier, 'broken', 1);
    await until('the pause', () => /app broken \(fcm\): paused; one push at a time will show when it is well/.test(notifier.output));
    // The probe is not answered until the gate opens.
    const tried = stub.pushes.length, gate = new Promise((resolve) => { open_ = resolve; });
    answer = () => ({ status: 200, headers: {}, body: '{"name":"x"}', after: gate });
    await breaker(notifier, 'broken', 2);
    await until('the probe', () => stub.pushes.length > tried);
    const other = await crowd(1, 'webpush', 'well', () => well.subscribe('well'));
    await system.send(other.conversation, other.sender);
    await accepted(other);
    assert.equal(stub.pushes.length, tried + 1, 'one at a time, and nobody else waits for it');
    open_();
    await recovered(group);
    await breaker(notifier, 'broken', 0);
  });

  test('Web Push: a service that fails is paused, and no other one of the app', async () => {
    let well = false;
    const broken = await webPushStub({ answer: () => (well ? null : { status: 503 }) }), other = await webPushStub();
    const notifier = start(GENERAL + system.section('browsers', 'webpush', broken));
    const bad = await crowd(60, 'webpush', 'browsers', (i) => broken.subscribe(`bad-${i}`)), good = await crowd(60, 'webpush', 'browsers', (i) => other.subscribe(`good-${i}`));
    await system.send(bad.conversation, bad.sender);
    await until('the pause', async () => (await system.metric(notifier, 'paused_services', 'browsers')) === 1);
    await system.send(good.conversation, good.sender);
    await accepted(good);
    assert.equal(await system.count(bad.conversation, 'due'), 60);
    assert.equal(await system.metric(notifier, 'breaker_state', 'browsers'), 0);
    well = true;
    await recovered(bad);
    await until('its end', async () => (await system.metric(notifier, 'paused_services', 'browsers')) === 0);
  });
});

// What the claim saw is too old after 150 ms (sender.c).
test('what was read while its push waited for a connection is not sent', async (t) => {
  const stub = await webPushStub();
  let open_, knocked = 0;
  const gate = new Promise((resolve) => { open_ = resolve; });
  const door = net.createServer((client) => {
    knocked ||= performance.now();
    client.on('error', () => {});
    gate.then(() => {
      const service = net.connect(stub.port, '127.0.0.1').on('error', () => client.destroy()).on('close', () => client.destroy());
      client.on('close', () => service.destroy()).pipe(service).pipe(client);
    });
  });
  await new Promise((resolve) => door.listen(0, '127.0.0.1', resolve));
  t.after(() => { door.close(); open_(); for (const session of stub.sessions) session.destroy(); });
  stub.origin = `https://127.0.0.1:${door.address().port}`;
  start(GENERAL + system.section('late', 'webpush', stub));
  const group = await crowd(2, 'webpush', 'late', (i) => stub.subscribe(`late-${i}`)), user = group.sender + 1;
  // The second one shows that the door is open: it is never read.
  const seq = await system.send(group.conversation, group.sender);
  await until('a connection', () => knocked);
  await system.mark(group.conversation, user, 0, { read: seq });
  await until('the claim to be too old', () => performance.now() > knocked + 200);
  open_();
  await until('the other push', () => stub.of('late-1').length);
  await until('the end of its row', async () => (await system.value(`SELECT count(*) FROM chat.pushes WHERE device_id = ${user}`)) === '0');
  assert.equal(stub.of('late-0').length, 0);
});

describe('several notifiers', { concurrency: 2 }, () => {
  const pair = (stub, app) => ['one', 'two'].map((name) => GENERAL + system.section(app, 'webpush', stub, { subject: `mailto:${name}@example.org` }));

  test('share the work: each push is sent by one of them', async () => {
    const stub = await webPushStub({ answer: () => ({ status: 201, headers: {}, delay_ms: 20 }) });
    const group = await crowd(100, 'webpush', 'shared', (i) => stub.subscribe(`shared-${i}`));
    for (const text of pair(stub, 'shared')) start(text);
    await until('both to have sent something', async () => {
      await system.send(group.conversation, group.sender);
      await accepted(group);
      return new Set(stub.pushes.map((push) => push.subject)).size === 2;
    });
    // One push for each device and message, whoever sent it.
    const sent = stub.pushes.map((push) => `${push.name} ${push.json.seq}`);
    assert.equal(new Set(sent).size, sent.length);
  });

  test('what a killed one had claimed is sent by the other when the lease is up, with the same id', async () => {
    const stub = await webPushStub({ answer: (push) => (push.subject === 'mailto:one@example.org' ? { never: true } : null) });
    const [one, two] = pair(stub, 'taken');
    const group = await crowd(20, 'webpush', 'taken', (i) => stub.subscribe(`taken-${i}`));
    const claimed = `conversation_id = ${group.conversation} AND lease > 0 AND not_before > clock_timestamp()`;
    const victim = start(one);
    await system.send(group.conversation, group.sender);
    await until('a push under way', () => stub.pushes.length > 0);
    victim.kill('SIGKILL');
    await victim.ended;
    const held = stub.pushes.map((push) => push.name);
    assert.ok(await system.value(`SELECT count(*) FROM chat.pushes WHERE ${claimed}`) > 0, 'it died with rows claimed');
    start(two);
    // The minute of the first lease is over: on a slow machine a shorter one would be over for the living as well.
    await until('all to be accepted', async () => {
      await system.sql(`UPDATE chat.pushes SET not_before = clock_timestamp() WHERE ${claimed} AND lease = 1`);
      return await system.count(group.conversation, 'shown') === group.count;
    });
    for (const name of held) assert.equal(new Set(stub.of(name).map((push) => push.topic)).size, 1);
    assert.ok(held.every((name) => stub.of(name).some((push) => push.subject === 'mailto:two@example.org')));
  });
});

describe('signals', { concurrency: 2 }, () => {
  test('SIGHUP: what is under way ends under the old configuration; sections come and go', async () => {
    let open_;
    const gate = new Promise((resolve) => { open_ = resolve; });
    const stub = await webPushStub({ answer: (push) => (push.name === 'held' ? { status: 201, headers: {}, after: gate } : null) });
    const old = system.section('old', 'webpush', stub, { timeout: '120s' }), fresh = system.section('fresh', 'webpush', stub);
    const name = `${conversation}.conf`, notifier = start(PATIENT + old);
    const held = await crowd(1, 'webpush', 'old', () => stub.subscribe('held'));
    await system.send(held.conversation, held.sender);
    await until('a push under way', () => stub.of('held').length);
    system.configure(PATIENT + fresh, name);
    notifier.kill('SIGHUP');
    await until('the reload', () => notifier.output.includes('was read again'));
    const left = await crowd(1, 'webpush', 'old', () => stub.subscribe('left')), come = await crowd(1, 'webpush', 'fresh', () => stub.subscribe('come'));
    await system.send(left.conversation, left.sender);
    await system.send(come.conversation, come.sender);
    await accepted(come);
    open_();
    await accepted(held);
    assert.equal(await system.count(left.conversation, 'due'), 1, 'what nobody sends waits');
    system.configure(PATIENT + fresh + old, name);
    notifier.kill('SIGHUP');
    await accepted(left);
    assert.equal(stub.of('held').length, 1);
  });

  test('SIGTERM: a service that never answers is not waited for longer than `drain`; what it has goes back', async () => {
    const stub = await webPushStub({ answer: () => ({ never: true }) });
    const notifier = start(`${PATIENT}drain = 200ms\n${system.section('mute', 'webpush', stub, { timeout: '120s' })}`);
    const group = await crowd(10, 'webpush', 'mute', (i) => stub.subscribe(`mute-${i}`));
    await system.send(group.conversation, group.sender);
    await until('a push under way', () => stub.pushes.length > 0);
    await system.end(notifier);
    assert.equal(await system.value(`SELECT count(*) FROM chat.pushes WHERE conversation_id = ${group.conversation} AND state = 'due' AND not_before <= clock_timestamp()`), '10', 'nothing is claimed');
  });

  test('SIGTERM: what a slow database hands out when `drain` is over is not sent any more', async () => {
    const mute = await webPushStub({ answer: () => ({ never: true }) }), well = await webPushStub();
    const notifier = start(`${PATIENT}drain = 200ms\n${system.section('slow', 'webpush', mute, { timeout: '120s', in_flight: 2 })}`);
    const first = await crowd(1, 'webpush', 'slow', () => mute.subscribe('first')), second = await crowd(1, 'webpush', 'slow', () => well.subscribe('second'));
    await system.send(first.conversation, first.sender);
    await until('a push under way', () => mute.pushes.length > 0);
    // The claim of the second waits in the database, for a lock that is held here.
    await system.sql(`CREATE FUNCTION public.wait_here() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN PERFORM pg_advisory_xact_lock(4711); RETURN NEW; END';
      CREATE TRIGGER wait_here BEFORE UPDATE ON chat.pushes FOR EACH ROW WHEN (NEW.conversation_id = ${second.conversation}) EXECUTE FUNCTION public.wait_here()`);
    const holder = new Session(system.conninfo('postgres'));
    await holder.value('SELECT pg_advisory_lock(4711)');
    await system.send(second.conversation, second.sender);
    await until('the claim to wait', async () => (await system.value(`SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND objid = 4711 AND NOT granted`)) === '1');
    notifier.kill('SIGTERM');
    await until('the end of `drain`', () => mute.sessions.size === 0);
    await system.metric(notifier, 'in_flight', 'slow').catch(() => {}); // unless it has ended: it waits for the database for 5 s
    await holder.end();
    const { code, signal, output } = await notifier.ended;
    assert.equal(code, 0, `${signal}\n${output}`);
    assert.equal(well.pushes.length, 0);
  });
});
