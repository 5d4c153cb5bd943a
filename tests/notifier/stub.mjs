// stub.mjs - what the stubs of FCM and APNs share: an HTTPS server that speaks HTTP/2 and can be taken down at any moment.
import http2 from 'node:http2';

// Below the range that the kernel takes ports of outgoing connections from (32768 and up): while a stub is down, one of them might have its port, or
// whoever knocks connect to itself.
const anyPort = () => 12000 + Math.floor(Math.random() * 20000);

export class Stub {
  constructor(options) {
    this.pushes = [];
    this.wrong = []; // what the real service would have refused as a mistake of ours
    this.sessions = new Set();
    this.connections = 0;
    this.options = options;
    this.make();
  }

  make() {
    this.server = http2.createSecureServer(this.options, (request, response) => this.read(request, response));
    this.server.on('session', (session) => {
      this.connections++;
      this.sessions.add(session);
      this.most = Math.max(this.most ?? 0, this.sessions.size);
      session.once('close', () => this.sessions.delete(session));
      session.on('error', () => {});
      session.on('stream', (stream) => stream.on('error', () => {}));
      this.opened?.(session);
    });
    this.server.on('tlsClientError', () => {});
    this.server.on('error', () => {});
  }

  async listen(port = 0, tries = 20) {
    try {
      await new Promise((resolve, reject) => { this.server.once('error', reject); this.server.listen(port || anyPort(), '127.0.0.1', resolve); });
    } catch (error) {
      if (port || !tries || error.code !== 'EADDRINUSE') throw error;
      return this.listen(port, tries - 1);
    }
    this.port = this.server.address().port;
    this.origin = `https://127.0.0.1:${this.port}`;
    return this;
  }

  read(request, response) {
    const chunks = [];
    request.on('data', (chunk) => chunks.push(chunk));
    request.on('error', () => {});
    response.on('error', () => {});
    request.on('end', () => {
      const body = Buffer.concat(chunks);
      // Given up in the middle (RST_STREAM): as if it had never come (RFC 9113 section 8.1.1).
      if (body.length !== Number(request.headers['content-length'] ?? body.length)) { this.cut = (this.cut ?? 0) + 1; return; }
      const answer = this.take(request, body);
      if (!answer || answer.never) return;
      if (answer.reset) { request.stream.close(http2.constants.NGHTTP2_INTERNAL_ERROR); return; }
      const send = () => { if (!response.stream?.destroyed) { response.writeHead(answer.status, answer.headers); response.end(answer.body); } };
      if (answer.after) answer.after.then(send); // a promise
      else if (answer.delay_ms) setTimeout(send, answer.delay_ms);
      else send();
    });
  }

  of(name) {
    return this.pushes.filter((push) => push.name === name);
  }

  // As if the machine had gone; listen(port) brings it back.
  async down() {
    for (const session of this.sessions) session.destroy();
    await new Promise((resolve) => this.server.close(resolve));
    this.make();
  }

  async close() {
    for (const session of this.sessions) session.destroy();
    await new Promise((resolve) => this.server.close(resolve));
  }
}
