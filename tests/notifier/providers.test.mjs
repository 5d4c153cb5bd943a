// FCM and APNs: what is sent, and what is made of their answers.
import assert from 'node:assert';
import fs from 'node:fs';
import { after, before, describe, test } from 'node:test';
import { ApnsStub, apnsError } from './apns_stub.mjs';
import { FcmStub, fcmError } from './fcm_stub.mjs';
import { System, until } from './system.mjs';

let system, fcm, apns, certificate, notifier, conversation = 600;
const answers = new Map(); // by token: a list of answers, taken one by one, or what makes one of the push
const answer = (push) => {
  const given = answers.get(push.name);
  return (typeof given === 'function' ? given(push) : given?.shift()) ?? null;
};
const pem = (name) => fs.readFileSync(system.file(name), 'utf8');
const token = (n) => n.toString(16).padStart(64, '0');

before(async () => {
  system = await System.start();
  fcm = await new FcmStub(system.tls(), { key: pem('google.pub'), answer }).listen();
  apns = await new ApnsStub(system.tls(), { key: pem('apns.pub'), answer }).listen();
  certificate = await new ApnsStub(system.tls(), { answer }).listen();
  notifier = system.notifier(`grace = 0
poll = 20ms
listen = 127.0.0.1:0
[android]
provider = fcm
service_account = ${system.serviceAccount(`${fcm.origin}/token`)}
url = ${fcm.origin}
ca_file = ${system.file('ca.pem')}
content = full
[ios]
provider = apns
url = ${apns.origin}
ca_file = ${system.file('ca.pem')}
topic = org.example.chat
key_file = ${system.file('apns.p8')}
key_id = KEYID12345
team_id = TEAMID1234
[ios-certificate]
provider = apns
url = ${certificate.origin}
ca_file = ${system.file('ca.pem')}
topic = org.example.chat
certificate = ${system.file('client.pem')}
certificate_key = ${system.file('client.key')}
`);
});
after(async () => {
  const output = await system.end(notifier);
  assert.doesNotMatch(output, /ya29\.|eyJ|PRIVATE/, 'no credential in the log');
  assert.doesNotMatch(output, /secret words/, 'no text in the log');
  assert.deepEqual([fcm.wrong, apns.wrong, certificate.wrong], [[], [], []]);
  for (const stub of [fcm, apns, certificate]) await stub.close();
  await system.stop();
});

// A group of two whose second member has one device; a message from the first.
async function push(provider, app, target, body = 'secret words') {
  const id = ++conversation;
  await system.people(2, id, id * 10);
  await system.device(id, id * 10 + 1, provider, app, target);
  const seq = await system.send(id, id * 10, body);
  return { id, device: id, user: id * 10 + 1, sender: id * 10, seq };
}
const state = (id) => system.value(`SELECT state FROM chat.pushes WHERE device_id = ${id}`);
const target = (id) => system.value(`SELECT count(*) FROM chat.push_targets WHERE device_id = ${id}`);

describe('each by itself', { concurrency: 6 }, () => {
  test('FCM: a notification with its ids, over one access token', async () => {
    const { id, seq } = await push('fcm', 'android', 'android-one');
    await until('the push', () => fcm.of('android-one').length);
    const { message } = fcm.of('android-one')[0];
    assert.deepEqual(message.notification, { title: 'Lunch', body: `Person ${id * 10}: secret words` });
    assert.deepEqual(message.data, { kind: 'message', conversation: String(id), seq: String(seq), count: '1' });
    assert.equal(message.android.notification.tag, `conversation-${id}`);
    assert.equal(fcm.fetched, 1);
  });

  test('APNs with a token: alert, badge, collapse id', async () => {
    const { id, seq } = await push('apns', 'ios', token(1));
    await until('the push', () => apns.of(token(1)).length);
    const { json, headers } = apns.of(token(1))[0];
    assert.deepEqual(json, { aps: { alert: { title: 'Lunch', body: `New message from Person ${id * 10}` }, sound: 'default', 'mutable-content': 1, 'thread-id': `conversation-${id}`, badge: 1 },
      kind: 'message', conversation: id, seq, count: 1 });
    assert.equal(headers['apns-collapse-id'], `conversation-${id}`);
    assert.equal(headers['apns-push-type'], 'alert');
  });

  test('APNs with a certificate', async () => {
    await push('apns', 'ios-certificate', token(2));
    await until('the push', () => certificate.of(token(2)).length);
    assert.equal(certificate.of(token(2))[0].headers.authorization, undefined);
  });

  for (const [name, given] of [['UNREGISTERED', fcmError(404, 'UNREGISTERED', { rpc: 'NOT_FOUND' })], ['INVALID_ARGUMENT about the token',
    fcmError(400, 'INVALID_ARGUMENT', { violations: [{ field: 'message.token', description: 'Invalid registration token' }] })]]) {
    test(`FCM ${name}: the target is removed`, async () => {
      answers.set(`android-${name}`, [given]);
      const { device } = await push('fcm', 'android', `android-${name}`);
      await until('the removal', async () => (await target(device)) === '0');
      await until('the end of its row', async () => (await state(device)) === undefined);
      assert.equal(fcm.of(`android-${name}`).length, 1);
    });
  }

  test('APNs Unregistered: the target is removed', async () => {
    answers.set(token(3), () => apnsError(410, 'Unregistered', { timestamp: Date.now() + 3600000 }));
    const { device } = await push('apns', 'ios', token(3));
    await until('the removal', async () => (await target(device)) === '0');
  });

  test('APNs Unregistered since before the token was given: it stays', async () => {
    answers.set(token(4), [apnsError(410, 'Unregistered', { timestamp: Date.now() - 3600000 })]);
    const { device } = await push('apns', 'ios', token(4));
    await until('another try', () => apns.of(token(4)).length >= 2);
    assert.equal(await target(device), '1');
    assert.equal(apns.of(token(4))[0].id, apns.of(token(4))[1].id, 'a repeat has the same id');
  });

  test('a target that changed while its push was under way is not removed', async () => {
    let open;
    answers.set(token(5), [{ ...apnsError(410, 'Unregistered', { timestamp: Date.now() + 3600000 }), after: new Promise((resolve) => { open = resolve; }) }]);
    const { device } = await push('apns', 'ios', token(5));
    await until('the push', () => apns.of(token(5)).length);
    await system.sql(`UPDATE chat.push_targets SET token = '${token(6)}', updated_at = clock_timestamp() WHERE device_id = ${device}`);
    open();
    await until('the push to the new one', () => apns.of(token(6)).length);
    assert.equal(await target(device), '1');
  });

  test('a bad payload is kept aside, and an administrator can have it tried again', async () => {
    let bad = true;
    answers.set(token(7), () => (bad ? apnsError(400, 'BadExpirationDate') : null));
    const { device } = await push('apns', 'ios', token(7));
    await until('its being given up', async () => (await state(device)) === 'dead');
    assert.equal(await system.value(`SELECT last_error FROM chat.pushes WHERE device_id = ${device}`), 'BadExpirationDate');
    bad = false;
    assert.equal(await system.value(`SELECT chat.redrive_pushes('ios')`), '1');
    await until('its being sent', async () => (await state(device)) === 'shown');
  });

  test('too large: once more with ids alone', async () => {
    answers.set(token(8), (tried) => (tried.json.aps.alert.body === '' ? null : apnsError(413, 'PayloadTooLarge'))); // whichever try it is: an answer may be lost
    const { id } = await push('apns', 'ios', token(8));
    const short = () => apns.of(token(8)).find((tried) => tried.json.aps.alert.body === '');
    await until('a try without the text', short);
    assert.equal(short().json.conversation, id);
  });

  test('a reset stream, a page of HTML, a server error: tried again with the same id', async () => {
    answers.set(token(9), [{ reset: true }, { status: 502, headers: {}, body: '<html>bad gateway</html>' }, { status: 503, headers: { 'retry-after': '1' }, body: '' }]);
    const { device } = await push('apns', 'ios', token(9));
    await until('its being accepted', async () => (await state(device)) === 'shown');
    const tries = apns.of(token(9));
    assert.ok(tries.length >= 4, `${tries.length} tries`);
    assert.equal(new Set(tries.map((each) => each.id)).size, 1);
  });

  test('an answer of 50 MB is not read, one that never comes is not waited for: others are sent meanwhile (threat 53)', async () => {
    const peak_mb = () => /VmHWM:\s+(\d+)/.exec(fs.readFileSync(`/proc/${notifier.pid}/status`, 'utf8'))[1] / 1024;
    const before = peak_mb();
    answers.set(token(11), [{ status: 502, headers: {}, body: Buffer.alloc(50e6, 'x') }]);
    answers.set(token(12), [{ status: 200, headers: {}, body: '', delay_ms: 16000 }]);
    const { device } = await push('apns', 'ios', token(11));
    await push('apns', 'ios', token(12));
    await until('the push that is not answered', () => apns.of(token(12)).length);
    const { device: other } = await push('apns', 'ios', token(13));
    await until('the others', async () => (await state(other)) === 'shown');
    await until('its being tried again', async () => (await state(device)) === 'shown');
    if (Number(process.env.CHAT_TEST_SLOW ?? 1) === 1) // a sanitized one keeps what was freed
      assert.ok(peak_mb() - before < 25, `${before} MB before, ${peak_mb()} MB after`);
  });

  test('read on another device: one silent push takes the notification away', async () => {
    const { id, user, seq } = await push('apns', 'ios', token(10));
    await until('the push', async () => (await state(id)) === 'shown');
    await system.mark(id, user, 0, { read: seq });
    const silent = () => apns.of(token(10)).find(({ headers }) => headers['apns-push-type'] === 'background');
    await until('the silent push', silent);
    assert.deepEqual(silent().json, { aps: { 'content-available': 1, badge: 0 }, kind: 'clear', conversations: [id] });
    await until('the end of its row', async () => (await state(id)) === undefined);
  });
});

test('GOAWAY: nothing is lost', async () => {
  apns.goawayAfter = 20;
  const first = 7000, count = 100, id = ++conversation;
  await system.people(count + 1, id, id * 1000);
  await system.sql(`INSERT INTO chat.devices (id, user_id) SELECT ${id * 1000} + i, ${id * 1000} + i FROM generate_series(1, ${count}) i;
    INSERT INTO chat.push_targets (device_id, provider, app, token) SELECT ${id * 1000} + i, 'apns', 'ios', lpad(to_hex(${first} + i), 64, '0') FROM generate_series(1, ${count}) i`);
  await system.send(id, id * 1000);
  await until('all of them', async () => (await system.value(`SELECT count(*) FROM chat.pushes WHERE conversation_id = ${id} AND state = 'shown'`)) === String(count));
  for (let i = 1; i <= count; i++) assert.equal(new Set(apns.of(token(first + i)).map((push) => push.id)).size, 1);
  assert.ok(apns.goaways > 0);
  apns.goawayAfter = 0;
});

test('metrics and health', async () => {
  const port = /127\.0\.0\.1:(\d+)/.exec(notifier.output)[1];
  assert.equal((await fetch(`http://127.0.0.1:${port}/health`)).status, 200);
  const text = await (await fetch(`http://127.0.0.1:${port}/metrics`)).text();
  assert.match(text, /chat_notifier_accepted_total\{app="android"\} [1-9]/);
  assert.match(text, /chat_notifier_refused_total\{app="ios",reason="PayloadTooLarge"\} [1-9]/);
  assert.match(text, /chat_notifier_latency_seconds_count\{app="ios"\} [1-9]/);
  assert.match(text, /chat_notifier_breaker_state\{app="ios"\} 0/);
  assert.equal((await fetch(`http://127.0.0.1:${port}/else`)).status, 404);
});
