// The stubs and the notifier, against programs that nobody here wrote: clients of Apple's and Google's take the stubs for the services; a push service
// for tests takes the notifier for any sender, checks its VAPID token and decrypts what it sent.
//
// CHAT_TEST_PEERS is the directory with the modules of package-lock.json; tests/run.sh installs them.
import assert from 'node:assert';
import fs from 'node:fs';
import https from 'node:https';
import { createRequire } from 'node:module';
import { after, before, test } from 'node:test';
import { ApnsStub, apnsError } from './apns_stub.mjs';
import { FcmStub, fcmError } from './fcm_stub.mjs';
import { System, until } from './system.mjs';
import { WebPushStub } from './webpush_stub.mjs';

const require = createRequire(`${process.env.CHAT_TEST_PEERS}/package.json`);
let system;
before(async () => { system = await System.start(); });
after(async () => { await system.stop(); });

const apnsStub = (answer = () => null) => new ApnsStub(system.tls(), { key: fs.readFileSync(system.file('apns.pub')), answer }).listen();
function apnsClient(stub, teamId = 'TEAMID1234') {
  const { Provider } = require('@parse/node-apn');
  return new Provider({ token: { key: system.file('apns.p8'), keyId: 'KEYID12345', teamId }, address: '127.0.0.1', port: stub.port, ca: fs.readFileSync(system.file('ca.pem')), rejectUnauthorized: false });
}
function note(changes = {}) {
  const { Notification } = require('@parse/node-apn');
  return new Notification({ alert: { title: 'a', body: 'b' }, topic: 'org.example.chat', pushType: 'alert', id: '123e4567-e89b-42d3-a456-426614174000', ...changes });
}

test('@parse/node-apn: accepted, and Unregistered with its time', async () => {
  const stub = await apnsStub((push) => (push.name.startsWith('dead') ? apnsError(410, 'Unregistered', { timestamp: 1790000000123 }) : null));
  const client = apnsClient(stub);
  // One after the other: before the first is accepted there is one stream, and this client does not wait for a second.
  const { sent } = await client.send(note(), 'ab'.repeat(32));
  const { failed } = await client.send(note(), 'dead'.repeat(16));
  assert.deepEqual(sent.map((each) => each.device), ['ab'.repeat(32)]);
  assert.equal(Number(failed[0].status), 410);
  assert.equal(failed[0].response.reason, 'Unregistered');
  assert.deepEqual(stub.wrong, []);
  client.shutdown();
  await stub.close();
});

test('@parse/node-apn: a silent push; and what the service would refuse, the stub refuses', async () => {
  const stub = await apnsStub();
  const client = apnsClient(stub);
  const silent = note({ alert: undefined, pushType: 'background', priority: 5, contentAvailable: 1, payload: { conversations: [1] } });
  assert.equal((await client.send(silent, 'ab'.repeat(32))).sent.length, 1);
  for (const [reason, changes] of [['TopicDisallowed', { topic: 'org.example.other' }], ['BadPriority', { alert: undefined, pushType: 'background', priority: 10, contentAvailable: 1 }],
    ['BadCollapseId', { collapseId: 'x'.repeat(65) }], ['PayloadTooLarge', { alert: 'x'.repeat(4096) }]]) {
    const { failed } = await client.send(note(changes), 'ab'.repeat(32));
    assert.equal(failed[0]?.response?.reason, reason);
  }
  client.shutdown();
  const stranger = apnsClient(stub, 'OTHERTEAM1');
  assert.equal((await stranger.send(note(), 'ab'.repeat(32))).failed[0].response.reason, 'InvalidProviderToken');
  stranger.shutdown();
  await stub.close();
});

test('firebase-admin: accepted, UNREGISTERED and INVALID_ARGUMENT, over HTTP/2', async () => {
  const http2 = require('http2'), connect = http2.connect;
  const answers = { gone: fcmError(404, 'UNREGISTERED', { rpc: 'NOT_FOUND' }), bad: fcmError(400, 'INVALID_ARGUMENT', { message: 'The registration token is not a valid FCM registration token' }) };
  const stub = await new FcmStub(system.tls(), { key: fs.readFileSync(system.file('google.pub')), answer: (push) => answers[push.name] ?? null }).listen();
  stub.tokens.set('test-token', Date.now() + 3600000);
  // Its host is fixed: its connections are led to the stub.
  http2.connect = (url, options) => {
    assert.equal(new URL(url).hostname, 'fcm.googleapis.com');
    const session = connect(stub.origin, { ...options, ca: fs.readFileSync(system.file('ca.pem')) }), request = session.request.bind(session);
    session.request = (headers, ...rest) => request({ ...headers, ':scheme': 'https' }, ...rest); // it says "https:", which Node's server does not forgive
    return session;
  };
  const { initializeApp, deleteApp } = require('firebase-admin/app'), { getMessaging } = require('firebase-admin/messaging');
  const app = initializeApp({ projectId: 'demo-project', credential: { getAccessToken: async () => ({ access_token: 'test-token', expires_in: 3600 }) } });
  const message = (token) => ({ token, notification: { title: 'a', body: 'b' }, data: { conversation: '1' }, android: { priority: 'high', ttl: 86400000, notification: { tag: 'x' } }, apns: { headers: { 'apns-collapse-id': 'x' }, payload: { aps: { 'thread-id': 'x' } } } });
  const { responses } = await getMessaging(app).sendEach(['good', 'gone', 'bad'].map(message));
  assert.deepEqual(responses.map((each) => [each.success, each.error?.code]), [[true, undefined], [false, 'messaging/registration-token-not-registered'], [false, 'messaging/invalid-argument']]);
  assert.match(responses[0].messageId, /^projects\/demo-project\/messages\//);
  assert.deepEqual(stub.wrong, []);
  http2.connect = connect;
  await deleteApp(app);
  await stub.close();
});

// A group of two whose second member's browser is at `subscription`, and a notifier of its own.
let next = 900;
async function browser(subscription) {
  const conversation = next++, sender = conversation * 10, app = `peer${conversation}`;
  await system.people(2, conversation, sender);
  await system.device(sender + 1, sender + 1, 'webpush', app, subscription);
  const notifier = system.notifier(`grace = 0\npoll = 20ms\n${system.section(app, 'webpush', null, { content: 'full' })}`);
  return { conversation, sender, device: sender + 1, notifier };
}

test('http_ece reads what the notifier encrypted', async () => {
  const ece = require('http_ece');
  const stub = await new WebPushStub(system.tls()).listen();
  const { conversation, sender, notifier } = await browser(stub.subscribe('ece'));
  await system.send(conversation, sender, 'Grüße 👋');
  await until('the push', () => stub.pushes.length);
  const { ecdh, auth } = stub.browsers.get('/push/ece');
  const text = ece.decrypt(stub.pushes[0].body, { version: 'aes128gcm', privateKey: ecdh, authSecret: auth.toString('base64url') });
  assert.equal(JSON.parse(text).body, `Person ${sender}: Grüße 👋`);
  await system.end(notifier);
  await stub.close();
});

test('web-push-testing accepts what the notifier sends, reads it, and says when a subscription has ended', async () => {
  const { PushApiModel } = require('web-push-testing/src/PushApiModel.js'), Server = require('web-push-testing/src/server.js');
  // It speaks HTTP; the notifier does not. So its application is served behind TLS here.
  const model = new PushApiModel(), service = new Server(model, 0);
  service.setRequestHandlers();
  const server = https.createServer(system.tls(), service._app);
  await new Promise((resolve) => server.listen(0, '127.0.0.1', resolve));
  const origin = `https://127.0.0.1:${server.address().port}`;
  model.notifyUrl = `${origin}/notify/`;
  // With the key that a page would be given: a token signed with any other is refused.
  const { output } = await system.notifier(null, { file: system.configure(system.section('key', 'webpush', null), 'key.conf'), args: ['--check'] }).ended;
  const [, key] = /applicationServerKey ([\w-]+)/.exec(output);
  const { clientHash, ...subscription } = await model.subscribe({ userVisibleOnly: 'true', applicationServerKey: key });
  const { conversation, sender, device, notifier } = await browser(subscription);
  await system.send(conversation, sender, 'Grüße 👋');
  await until('its acceptance', async () => (await system.count(conversation, 'shown')) === 1);
  const { messages } = model.getNotifications({ clientHash });
  assert.deepEqual(messages.map((text) => JSON.parse(text).body), [`Person ${sender}: Grüße 👋`]);
  model.expireSubscription(clientHash);
  await system.send(conversation, sender);
  await until('its removal', async () => (await system.value(`SELECT count(*) FROM chat.push_targets WHERE device_id = ${device}`)) === '0');
  // A subscription made with somebody else's key: refused, and not taken for dead.
  const { clientHash: _, ...foreign } = await model.subscribe({ userVisibleOnly: 'true', applicationServerKey: require('crypto').createECDH('prime256v1').generateKeys('base64url') });
  const other = await browser(foreign);
  await system.send(other.conversation, other.sender);
  await until('its being given up', async () => (await system.count(other.conversation, 'dead')) === 1);
  for (const each of [notifier, other.notifier]) await system.end(each);
  server.closeAllConnections();
  await new Promise((resolve) => server.close(resolve));
});
