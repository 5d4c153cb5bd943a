// The subscription's keys, shared by page and worker through the browser's IndexedDB. The private one cannot be exported: it never leaves the browser.
const bytesOf = (text) => Uint8Array.from(atob(text.replace(/-/g, '+').replace(/_/g, '/')), (character) => character.charCodeAt(0));
const textOf = (bytes) => btoa(String.fromCharCode(...new Uint8Array(bytes))).replace(/\+/g, '-').replace(/\//g, '_').replace(/=+$/, '');

function done(request) {
  return new Promise((resolve, reject) => {
    request.onsuccess = () => resolve(request.result);
    request.onerror = () => reject(request.error);
  });
}

async function store(mode) {
  const request = indexedDB.open('push', 1);
  request.onupgradeneeded = () => request.result.createObjectStore('keys');
  return (await done(request)).transaction('keys', mode).objectStore('keys');
}

async function makeKeys() {
  const pair = await crypto.subtle.generateKey({ name: 'ECDH', namedCurve: 'P-256' }, false, ['deriveBits']), auth = crypto.getRandomValues(new Uint8Array(16));
  await done((await store('readwrite')).put({ pair, auth }, 'own'));
  return { p256dh: textOf(await crypto.subtle.exportKey('raw', pair.publicKey)), auth: textOf(auth) };
}

async function loadKeys() {
  return done((await store('readonly')).get('own'));
}
