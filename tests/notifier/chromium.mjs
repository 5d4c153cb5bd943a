// chromium.mjs - Debian's Chromium without a window, driven by the DevTools protocol over a pipe: it listens on nothing, its profile and home are
// a directory of the test's, and no name but 127.0.0.1 resolves for it.
import { spawn } from 'node:child_process';
import fs from 'node:fs';
import path from 'node:path';
import { until } from './system.mjs';

const PROGRAM = '/usr/bin/chromium';

export class Chromium {
  static async start(directory) {
    if (!fs.existsSync(PROGRAM)) throw new Error(`${PROGRAM} is missing: tests/run.sh installs Debian's package chromium`);
    const chromium = new Chromium(), home = path.join(directory, 'chromium');
    fs.mkdirSync(home);
    // Its own sandbox needs what root, and a container, has not; it is shown nothing but the test's page.
    const flags = ['--headless=new', '--remote-debugging-pipe', '--no-sandbox', '--disable-gpu', '--disable-dev-shm-usage', '--no-first-run', '--disable-sync',
      '--disable-background-networking', '--disable-component-update', '--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1', `--user-data-dir=${home}/profile`];
    const child = spawn(PROGRAM, [...flags, 'about:blank'], { stdio: ['ignore', 'ignore', 'pipe', 'pipe', 'pipe'], env: { ...process.env, HOME: home, XDG_CONFIG_HOME: home, XDG_CACHE_HOME: home } });
    Object.assign(chromium, { child, calls: new Map(), listeners: [], number: 0, output: '' });
    chromium.ended = new Promise((resolve) => child.once('exit', resolve));
    process.on('exit', () => child.kill('SIGKILL'));
    child.stderr.on('data', (data) => { chromium.output = (chromium.output + data).slice(-4000); });
    child.stdio[3].on('error', () => {});
    let text = '';
    child.stdio[4].setEncoding('utf8').on('data', (data) => {
      const messages = (text + data).split('\0');
      text = messages.pop();
      for (const message of messages) chromium.take(JSON.parse(message));
    });
    chromium.ended.then(() => { for (const call of chromium.calls.values()) call.reject(new Error(`chromium has ended:\n${chromium.output}`)); });
    return chromium;
  }

  take({ id, result, error, ...event }) {
    if (id === undefined) return this.listeners.forEach((listener) => listener(event));
    const call = this.calls.get(id);
    this.calls.delete(id);
    return error ? call.reject(new Error(`${call.method}: ${error.message}`)) : call.resolve(result);
  }

  call(method, params = {}, sessionId = undefined) {
    const id = ++this.number;
    this.child.stdio[3].write(`${JSON.stringify({ id, method, params, sessionId })}\0`);
    return new Promise((resolve, reject) => this.calls.set(id, { method, resolve, reject }));
  }

  // Opens a page. Returns what runs an expression there and waits for its value.
  async open(url) {
    const { targetId } = await this.call('Target.createTarget', { url });
    const { sessionId } = await this.call('Target.attachToTarget', { targetId, flatten: true });
    const run = async (expression) => {
      const { result, exceptionDetails } = await this.call('Runtime.evaluate', { expression, awaitPromise: true, returnByValue: true }, sessionId);
      if (exceptionDetails) throw new Error(exceptionDetails.exception?.description ?? exceptionDetails.text);
      return result.value;
    };
    // While the page still loads, an expression's context may go away under it.
    await until('the page', () => run('document.readyState === "complete" && location.href !== "about:blank"').catch(() => false));
    return { sessionId, run };
  }

  // The number under which it keeps a service worker's registration.
  async registration({ sessionId }, scope) {
    let id;
    this.listeners.push(({ method, params }) => {
      if (method === 'ServiceWorker.workerRegistrationUpdated') id = params.registrations.find((each) => each.scopeURL === scope)?.registrationId ?? id;
    });
    await this.call('ServiceWorker.enable', {}, sessionId);
    return until('the registration', () => id);
  }

  async close() {
    this.call('Browser.close').catch(() => {});
    await this.ended;
  }
}
