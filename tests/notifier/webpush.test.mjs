// From the commit to the browser: what is pushed, what is not, and what becomes of it. The service is a stub for Web Push.
import assert from 'node:assert';
import fs from 'node:fs';
import { after, before, describe, test } from 'node:test';
import { System, until } from './system.mjs';
import { WebPushStub } from './webpush_stub.mjs';

let system, stub, notifier, conversation = 500;
const answers = new Map(); // by subscription: a list of answers, taken one by one
const section = (name, more = '') => `[${name}]
provider = webpush
key_file = ${system.file('vapid.pem')}
subject = mailto:ops@example.org
ca_file = ${system.file('ca.pem')}
${more}`;
const config = () => `grace = 1s\npoll = 20ms\n${section('web', 'content = full\nany_host = on\n')}${section('strict')}`;

before(async () => {
  system = await System.start();
  stub = await new WebPushStub(system.tls(), { answer: (push) => answers.get(push.name)?.shift() ?? null }).listen();
  notifier = system.notifier(config());
});
after(async () => {
  const output = await system.end(notifier);
  assert.doesNotMatch(output, /vapid t=|eyJ|Where are you/, 'nothing secret and no text in the log');
  assert.deepEqual(stub.wrong, []);
  await stub.close();
  await system.stop();
});

// A group of two whose second member has a browser.
async function browser(name, app = 'web', subscription = stub.subscribe(name)) {
  const id = ++conversation;
  await system.people(2, id, id * 10);
  await system.device(id, id * 10 + 1, 'webpush', app, subscription);
  return { id, sender: id * 10, user: id * 10 + 1, name };
}
const state = (id) => system.value(`SELECT state FROM chat.pushes WHERE device_id = ${id}`);
// A message to somebody else that is pushed: whatever came before it has been looked at.
async function fence() {
  const other = await browser(`fence ${conversation}`.replace(' ', '-'));
  await system.send(other.id, other.sender);
  await until('the fence', () => stub.of(other.name).length);
}

describe('Web Push', { concurrency: 6 }, () => {
  test('a message that did not reach a browser is pushed to it, once, and remembered', async () => {
    const { id, sender } = await browser('one');
    const seq = await system.send(id, sender, 'Where are you?');
    await until('the push', () => stub.of('one').length);
    assert.deepEqual(stub.of('one')[0].json, { kind: 'message', conversation: id, seq, count: 1, title: 'Lunch', body: `Person ${sender}: Where are you?` });
    await until('its settlement', async () => (await state(id)) === 'shown');
    assert.equal(stub.of('one').length, 1);
  });

  test('delivered or read within the grace period: no push, and no row', async () => {
    const delivered = await browser('delivered'), read = await browser('read');
    // In one transaction, so that however slow this machine is, both are there when the grace period ends.
    await system.transaction(system.sending(delivered.id, delivered.sender), system.marking(delivered.id, delivered.user, delivered.id, { delivered: 1 }));
    await system.transaction(system.sending(read.id, read.sender), system.marking(read.id, read.user, 0, { read: 1 }));
    await fence();
    assert.equal(stub.of('delivered').length + stub.of('read').length, 0);
    assert.equal(await system.value(`SELECT count(*) FROM chat.pushes WHERE device_id IN (${delivered.id}, ${read.id})`), '0');
  });

  test('several messages are one push, with the newest text', async () => {
    const { id, sender } = await browser('many');
    await system.send(id, sender, 'first', { count: 3 });
    await system.send(id, sender, 'last');
    await until('the push', () => stub.of('many').some((push) => push.json.body.endsWith('last')));
    assert.equal(stub.of('many').at(-1).json.count, 4);
    assert.equal(new Set(stub.of('many').map((push) => push.topic)).size, 1, 'one topic for a conversation');
  });

  test('what is encrypted end to end is not shown', async () => {
    const { id, sender } = await browser('opaque');
    await system.send(id, sender, 'c2VjcmV0', { type: 'opaque' });
    await until('the push', () => stub.of('opaque').length);
    assert.equal(stub.of('opaque')[0].json.body, `New message from Person ${sender}`);
  });

  test('read while it waits to be tried again: not sent any more', async () => {
    let open;
    answers.set('late', [{ status: 503, headers: { 'retry-after': '1' }, after: new Promise((resolve) => { open = resolve; }) }]);
    const { id, sender, user } = await browser('late');
    const seq = await system.send(id, sender);
    await until('the first try', () => stub.of('late').length);
    await system.mark(id, user, 0, { read: seq });
    open();
    await until('the end of its row', async () => (await state(id)) === undefined);
    assert.equal(stub.of('late').length, 1);
  });

  test('404 and 410: the subscription is removed', async () => {
    for (const status of [404, 410]) {
      answers.set(`gone-${status}`, [{ status }]);
      const { id, sender } = await browser(`gone-${status}`);
      await system.send(id, sender);
      await until('the removal', async () => (await system.value(`SELECT count(*) FROM chat.push_targets WHERE device_id = ${id}`)) === '0');
    }
  });

  test('413: once more with ids alone', async () => {
    answers.set('large', [{ status: 413 }]);
    const { id, sender } = await browser('large');
    const seq = await system.send(id, sender);
    await until('the second try', () => stub.of('large').length === 2);
    assert.deepEqual(stub.of('large')[1].json, { kind: 'message', conversation: id, seq, count: 1 });
  });

  test('a redirect is not followed', async () => {
    answers.set('moved', [{ status: 307, headers: { location: `${stub.origin}/push/elsewhere` } }]);
    stub.subscribe('elsewhere');
    const { id, sender } = await browser('moved');
    await system.send(id, sender);
    await until('its being given up', async () => (await state(id)) === 'dead');
    assert.equal(stub.of('elsewhere').length, 0);
  });

  test('a user tests their own device', async () => {
    const { id, user } = await browser('test');
    assert.equal(await system.value(`SELECT chat.test_push(${user}, ${id})`), 't');
    await until('the push', () => stub.of('test').length);
    assert.equal(stub.of('test')[0].json.title, 'Test');
    await until('the end of its row', async () => (await state(id)) === undefined);
  });

  test('endpoints that are no push service are given up without a connection (threat 49)', async () => {
    const refused = ['https://127.0.0.1:8443/x', `${stub.origin}/push/strict`, 'http://push.example.com/x', 'https://localhost/x', 'https://2130706433/x'];
    const keys = stub.subscribe('strict').keys;
    for (const endpoint of refused) {
      const { id, sender } = await browser('strict', 'strict', { endpoint, keys });
      await system.send(id, sender);
      await until('its being given up', async () => (await state(id)) === 'dead');
      assert.equal(await system.value(`SELECT last_error FROM chat.pushes WHERE device_id = ${id}`), 'bad_subscription');
    }
    assert.equal(stub.of('strict').length, 0);
  });
});

test('a name that resolves to a private address is not connected to (threat 49)', async () => {
  const { id, sender } = await browser('rebound', 'rebound', { endpoint: 'https://push.rebind.example.org/x', keys: stub.subscribe('rebound').keys });
  const other = system.notifier(null, { file: system.configure(`grace = 0\npoll = 20ms\n${section('rebound')}`, 'rebound.conf'),
    env: { LD_PRELOAD: process.env.CHAT_TEST_REBIND, ASAN_OPTIONS: 'verify_asan_link_order=0' } });
  await system.send(id, sender);
  await until('its being given up', async () => (await state(id)) === 'dead');
  assert.equal(await system.value(`SELECT last_error FROM chat.pushes WHERE device_id = ${id}`), 'forbidden_address');
  await system.end(other);
});

test('SIGHUP: another configuration as a whole, or none', async () => {
  const file = system.file('notifier.conf'), before_ = fs.readFileSync(file, 'utf8');
  fs.writeFileSync(file, `${before_}nonsense\n`);
  notifier.kill('SIGHUP');
  await until('the complaint', () => /notifier.conf:\d+: neither .* the old configuration stays/.test(notifier.output));
  fs.writeFileSync(file, before_.replace('content = full', 'content = none'));
  notifier.kill('SIGHUP');
  await until('the reload', () => notifier.output.includes('was read again'));
  const { id, sender } = await browser('reloaded');
  await system.send(id, sender);
  await until('the push', () => stub.of('reloaded').length);
  assert.equal(stub.of('reloaded')[0].json.title, 'Chat');
});

test('SIGTERM: what is under way is waited for, and no row stays claimed', async () => {
  const slow = await browser('slow'), other = await browser('queued');
  answers.set('slow', [{ status: 201, delay_ms: 700 }]);
  await system.send(slow.id, slow.sender);
  await until('the push', () => stub.of('slow').length);
  await system.send(other.id, other.sender);
  await system.end(notifier);
  assert.equal(await state(slow.id), 'shown');
  assert.equal(await system.value(`SELECT count(*) FROM chat.pushes WHERE state = 'due' AND not_before > clock_timestamp() + interval '5 seconds'`), '0');
  notifier = system.notifier(config());
  await until('the other one, by the next notifier', () => stub.of('queued').length);
});

test('--check, --once and --dry-run', async () => {
  const file = system.configure(`grace = 0\npoll = 20ms\n${section('dry', 'any_host = on\n')}`, 'dry.conf');
  const check = await system.notifier(null, { file, args: ['--check'] }).ended;
  assert.deepEqual([check.code, /applicationServerKey B[\w-]{86}\nall is well\n/.test(check.output)], [0, true]);
  const { id, user, sender } = await browser('dry', 'dry');
  await system.send(id, sender);
  await until('its being found', async () => (await state(id)) === 'due');
  const dry = await system.notifier(null, { file, args: ['--once', '--dry-run'] }).ended;
  assert.equal(dry.code, 0, dry.output);
  assert.match(dry.output, new RegExp(`would push to user ${user}, device ${id} \\(webpush, app dry\\): message, conversation ${id}, up to 1, count 1, title "Lunch", body "New message from Person ${sender}"`));
  assert.equal(stub.of('dry').length, 0);
  const wrong = await system.notifier(null, { file: system.configure('grace = soon\n', 'wrong.conf'), args: ['--check'] }).ended;
  assert.deepEqual([wrong.code, /wrong.conf:2: grace is a time/.test(wrong.output)], [1, true]);
});
