// From the commit to the browser, over a push service for Web Push.
import assert from 'node:assert';
import { after, before, beforeEach, test } from 'node:test';
import { System, until } from './system.mjs';
import { WebPushStub } from './webpush_stub.mjs';

let system, stub, notifier;
const config = (more = '') => `grace = 200ms\npoll = 20ms\n${more}
[web]
provider = webpush
key_file = ${system.file('vapid.pem')}
subject = mailto:ops@example.org
ca_file = ${system.file('ca.pem')}
content = full
any_host = on
`;

before(async () => {
  system = await System.start();
  stub = await new WebPushStub(system.tls()).listen();
  notifier = system.notifier(config());
});
after(async () => {
  await system.end(notifier);
  assert.deepEqual(stub.wrong, []);
  await stub.close();
  await system.stop();
});

test('a message that did not reach a browser is pushed to it, once, and remembered', async () => {
  await system.people(2);
  await system.device(1021, 102, 'webpush', 'web', stub.subscribe('one'));
  const seq = await system.send(501, 101, 'Where are you?');
  await until('the push', () => stub.of('one').length > 0);
  assert.deepEqual(stub.of('one')[0].json, { kind: 'message', conversation: 501, seq, count: 1, title: 'Lunch', body: 'Person 101: Where are you?' });
  await until('its settlement', async () => (await system.value('SELECT state FROM chat.pushes WHERE device_id = 1021')) === 'shown');
  assert.equal(stub.of('one').length, 1);
});
