// peers.mjs - the stubs and the notifier's encryption, against programs of others.
//
//   npm install --prefix DIR @parse/node-apn firebase-admin http_ece
//   CHAT_TEST_PEERS=DIR CHAT_NOTIFIER=… CHAT_TEST_TEMPLATE=… node --test tests/notifier/peers.mjs
//
// A client of Apple's and one of Google's that nobody here wrote take the stubs for the services; http_ece reads what the notifier encrypted.
import assert from 'node:assert';
import fs from 'node:fs';
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

test('@parse/node-apn: accepted, and Unregistered with its time', async () => {
  const apn = require('@parse/node-apn');
  const stub = await new ApnsStub(system.tls(), { key: fs.readFileSync(system.file('apns.pub')), answer: (push) => (push.name.startsWith('dead') ? apnsError(410, 'Unregistered', { timestamp: 1790000000123 }) : null) }).listen();
  const provider = new apn.Provider({ token: { key: system.file('apns.p8'), keyId: 'KEYID12345', teamId: 'TEAMID1234' }, address: '127.0.0.1', port: stub.port, ca: fs.readFileSync(system.file('ca.pem')), rejectUnauthorized: false });
  const note = new apn.Notification({ alert: { title: 'a', body: 'b' }, topic: 'org.example.chat', pushType: 'alert', id: '123e4567-e89b-42d3-a456-426614174000' });
  // One after the other: before the first is accepted there is one stream, and this client does not wait for a second.
  const { sent } = await provider.send(note, 'ab'.repeat(32));
  const { failed } = await provider.send(note, 'dead'.repeat(16));
  assert.deepEqual(sent.map((each) => each.device), ['ab'.repeat(32)]);
  assert.equal(Number(failed[0].status), 410);
  assert.equal(failed[0].response.reason, 'Unregistered');
  assert.deepEqual(stub.wrong, []);
  provider.shutdown();
  await stub.close();
});

test('firebase-admin: accepted, UNREGISTERED and INVALID_ARGUMENT', async () => {
  const https = require('https'), request = https.request;
  const answers = { gone: fcmError(404, 'UNREGISTERED', { rpc: 'NOT_FOUND' }), bad: fcmError(400, 'INVALID_ARGUMENT', { message: 'The registration token is not a valid FCM registration token' }) };
  const stub = await new FcmStub({ ...system.tls(), allowHTTP1: true }, { key: fs.readFileSync(system.file('google.pub')), answer: (push) => answers[push.name] ?? null }).listen();
  stub.tokens.set('test-token', Date.now() + 3600000);
  // Its host is fixed: its requests are led to the stub, over HTTP/1.1, where that can be done.
  https.request = (options, listener) => request({ ...options, host: '127.0.0.1', hostname: '127.0.0.1', port: stub.port, agent: undefined, ca: fs.readFileSync(system.file('ca.pem')) }, listener);
  const { initializeApp, deleteApp } = require('firebase-admin/app'), { getMessaging } = require('firebase-admin/messaging');
  const app = initializeApp({ projectId: 'demo-project', credential: { getAccessToken: async () => ({ access_token: 'test-token', expires_in: 3600 }) } });
  const message = (token) => ({ token, notification: { title: 'a', body: 'b' }, data: { conversation: '1' }, android: { priority: 'high', ttl: 86400000, notification: { tag: 'x' } }, apns: { headers: { 'apns-collapse-id': 'x' }, payload: { aps: { 'thread-id': 'x' } } } });
  const messaging = getMessaging(app);
  messaging.enableLegacyHttpTransport();
  const { responses } = await messaging.sendEach(['good', 'gone', 'bad'].map(message));
  assert.deepEqual(responses.map((each) => [each.success, each.error?.code]), [[true, undefined], [false, 'messaging/registration-token-not-registered'], [false, 'messaging/invalid-argument']]);
  assert.match(responses[0].messageId, /^projects\/demo-project\/messages\//);
  assert.deepEqual(stub.wrong, []);
  https.request = request;
  await deleteApp(app);
  await stub.close();
});

test('http_ece reads what the notifier encrypted', async () => {
  const ece = require('http_ece');
  const stub = await new WebPushStub(system.tls()).listen();
  const bodies = [], take = stub.take;
  stub.take = function (request, body) { bodies.push(body); return take.call(this, request, body); };
  await system.people(2, 900, 9000);
  await system.device(9001, 9001, 'webpush', 'web', stub.subscribe('ece'));
  const notifier = system.notifier(`grace = 0\npoll = 20ms\n[web]\nprovider = webpush\nkey_file = ${system.file('vapid.pem')}\nsubject = mailto:ops@example.org\nca_file = ${system.file('ca.pem')}\ncontent = full\nany_host = on\n`);
  await system.send(900, 9000, 'Grüße 👋');
  await until('the push', () => bodies.length);
  const browser = stub.browsers.get('/push/ece');
  const text = ece.decrypt(bodies[0], { version: 'aes128gcm', privateKey: browser.ecdh, authSecret: browser.auth.toString('base64url') });
  assert.equal(JSON.parse(text).body, 'Person 9000: Grüße 👋');
  await system.end(notifier);
  await stub.close();
});
