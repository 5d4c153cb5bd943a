// A page's service worker: what docs/notifier.md tells pages to do with a push. A browser decrypts a push before the worker sees it;
// this one is given the encrypted bytes as well (base64url), and then does RFC 8291 itself, with the browser's WebCrypto and the key that page.js made.
importScripts('keys.js');

self.addEventListener('install', () => self.skipWaiting());
self.addEventListener('activate', (event) => event.waitUntil(self.clients.claim()));
self.addEventListener('push', (event) => event.waitUntil(show(event.data)));

async function show(data) {
  const push = data.text().startsWith('{') ? data.json() : JSON.parse(await decrypt(bytesOf(data.text())));
  await self.registration.showNotification(push.title, { body: push.body, tag: `conversation-${push.conversation}`, data: { conversation: push.conversation, seq: push.seq } });
}

async function derive(salt, secret, info, length) {
  const key = await crypto.subtle.importKey('raw', secret, 'HKDF', false, ['deriveBits']);
  return crypto.subtle.deriveBits({ name: 'HKDF', hash: 'SHA-256', salt, info }, key, length * 8);
}

async function decrypt(body) {
  const { pair, auth } = await loadKeys(), text = new TextEncoder();
  const salt = body.slice(0, 16), size = new DataView(body.buffer).getUint32(16), theirs = body.slice(21, 86);
  if (body[20] !== 65 || body.length - 86 > size) throw new Error('not one record behind a public key');
  const point = await crypto.subtle.importKey('raw', theirs, { name: 'ECDH', namedCurve: 'P-256' }, false, []);
  const mine = new Uint8Array(await crypto.subtle.exportKey('raw', pair.publicKey));
  const shared = await crypto.subtle.deriveBits({ name: 'ECDH', public: point }, pair.privateKey, 256);
  const secret = await derive(auth, shared, new Uint8Array([...text.encode('WebPush: info\0'), ...mine, ...theirs]), 32);
  const key = await crypto.subtle.importKey('raw', await derive(salt, secret, text.encode('Content-Encoding: aes128gcm\0'), 16), 'AES-GCM', false, ['decrypt']);
  const iv = await derive(salt, secret, text.encode('Content-Encoding: nonce\0'), 12);
  const record = new Uint8Array(await crypto.subtle.decrypt({ name: 'AES-GCM', iv }, key, body.slice(86)));
  const end = record.findLastIndex((byte) => byte !== 0);
  if (record[end] !== 2) throw new Error('no delimiter of a last record');
  return new TextDecoder('utf-8', { fatal: true }).decode(record.slice(0, end));
}
