// From the commit to a notification in a real browser: Debian's Chromium, a service worker in it, its own cryptography.
//
// What is real: the message's way through database and notifier, the request that the push service gets, and, in the browser, the push event in a
// service worker, the decryption of that request's very bytes (the worker does it, with WebCrypto and a private key that cannot leave the browser), and
// the notification. What is not: PushManager.subscribe() and the browser's connection to its maker's push service, of which there is none without the Internet. A
// stub takes the service's place, and the DevTools protocol that of the connection (ServiceWorker.deliverPushMessage).
import assert from 'node:assert';
import fs from 'node:fs';
import http from 'node:http';
import path from 'node:path';
import { after, before, test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { Chromium } from './chromium.mjs';
import { System, until } from './system.mjs';
import { WebPushStub } from './webpush_stub.mjs';

const CONVERSATION = 800, SENDER = 8000, USER = 8001;
const here = path.join(path.dirname(fileURLToPath(import.meta.url)), 'page');
const types = { '.html': 'text/html', '.js': 'text/javascript' };
let system, stub, notifier, site, chromium, origin, page, registrationId;

before(async () => {
  system = await System.start();
  stub = await new WebPushStub(system.tls()).listen();
  notifier = system.notifier(`grace = 0
poll = 20ms
[web]
provider = webpush
key_file = ${system.file('vapid.pem')}
subject = mailto:ops@example.org
ca_file = ${system.file('ca.pem')}
content = full
any_host = on
`);
  site = http.createServer((request, response) => {
    const file = path.join(here, request.url === '/' ? 'index.html' : path.basename(request.url));
    if (!fs.existsSync(file)) return response.writeHead(404).end();
    return response.writeHead(200, { 'content-type': types[path.extname(file)] }).end(fs.readFileSync(file));
  });
  await new Promise((resolve) => site.listen(0, '127.0.0.1', resolve));
  origin = `http://127.0.0.1:${site.address().port}`; // 127.0.0.1 is trustworthy enough for service workers without TLS
  chromium = await Chromium.start(system.directory);
  await chromium.call('Browser.grantPermissions', { origin, permissions: ['notifications'] });
  page = await chromium.open(`${origin}/`);
  const keys = await page.run('subscribe()');
  registrationId = await chromium.registration(page, `${origin}/`);
  await system.people(2, CONVERSATION, SENDER);
  // One device whose pushes the browser alone can read, and one that the test can read as well.
  stub.browsers.set('/push/chromium', { decrypt: () => 'null' });
  await system.device(8001, USER, 'webpush', 'web', { endpoint: `${stub.origin}/push/chromium`, keys });
  await system.device(8002, USER, 'webpush', 'web', stub.subscribe('other'));
});
after(async () => {
  await chromium?.close();
  site?.close();
  await system.end(notifier);
  assert.deepEqual(stub.wrong, []);
  await stub.close();
  await system.stop();
});

// Delivers a push and waits for what is shown then. The protocol does not say that a delivery came to nothing, as it does right after the worker's
// registration; one that comes twice takes its own place.
function deliver(data, body) {
  return until(`the notification "${body}"`, async () => {
    await chromium.call('ServiceWorker.deliverPushMessage', { origin, registrationId, data }, page.sessionId);
    for (const end = Date.now() + 3000; Date.now() < end;) {
      const all = await page.run('shown()');
      if (all.some((each) => each.body === body)) return all;
    }
    return false;
  });
}
// The next push to a device: what the push service was given.
async function push(name, body) {
  const before_ = stub.of(name).length;
  const seq = await system.send(CONVERSATION, SENDER, body);
  await until('the push', () => stub.of(name).some((each, i) => i >= before_));
  return { seq, ...stub.of(name).at(-1) };
}

test('the bytes that the notifier sent become a notification', async () => {
  const { seq, body } = await push('chromium', 'Grüße aus dem Café 👋');
  assert.deepEqual(await deliver(body.toString('base64url'), `Person ${SENDER}: Grüße aus dem Café 👋`),
    [{ title: 'Lunch', body: `Person ${SENDER}: Grüße aus dem Café 👋`, tag: `conversation-${CONVERSATION}`, data: { conversation: CONVERSATION, seq } }]);
});

test('a later message of the conversation takes its place', async () => {
  const { seq, body } = await push('chromium', 'later');
  const all = await deliver(body.toString('base64url'), `Person ${SENDER}: later`);
  assert.deepEqual(all.map((each) => each.data), [{ conversation: CONVERSATION, seq }]);
});

test('what a browser hands over once it has decrypted a push itself', async () => {
  const { json } = await push('other', 'decrypted elsewhere');
  assert.equal((await deliver(JSON.stringify(json), `Person ${SENDER}: decrypted elsewhere`)).length, 1);
});
