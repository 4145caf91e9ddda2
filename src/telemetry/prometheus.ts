/**
 * The values of metrics for Prometheus: the text format 0.0.4, and a server for it on the loopback. Owned by the telemetry of a run; it reads what
 * the reporter holds, and nobody can change anything here.
 */
import { createServer, type IncomingMessage, type Server, type ServerResponse } from 'node:http';
import { PremotorError } from '../errors.js';
import type { MetricSpec, PrometheusKind } from './metrics.js';
import type { MetricValue } from './payload.js';

const CONTENT_TYPE = 'text/plain; version=0.0.4; charset=utf-8';
const PATH = '/metrics';
const REQUEST_TIMEOUT_MS = 5000;

const escapedHelp = (text: string): string => text.replaceAll('\\', '\\\\').replaceAll('\n', '\\n');
const escapedLabel = (text: string): string => escapedHelp(text).replaceAll('"', '\\"');

interface Family {
  readonly kind: PrometheusKind;
  readonly help: string;
  readonly lines: string[];
}

/** The family's name: counters end in _total. */
function familyName({ prometheus: { name, kind } }: MetricSpec): string {
  return kind === 'counter' ? `${name}_total` : name;
}

/** A text is 1 with the text as a label; what has no value is left out. */
function lineOf(family: string, { prometheus: { kind, labels } }: MetricSpec, value: MetricValue): string | undefined {
  if (value === null) return undefined;
  const all = kind === 'state' ? { ...labels, value: String(value) } : labels;
  const inside = Object.entries(all).map(([label, text]) => `${label}="${escapedLabel(text)}"`);
  const number = kind === 'state' ? 1 : Number(value);
  return `${family}${inside.length === 0 ? '' : `{${inside.join(',')}}`} ${number}`;
}

/** One exposition of all values that have a name there. */
export function expositionOf(values: Iterable<{ readonly spec: MetricSpec; readonly value: MetricValue }>): string {
  const families = new Map<string, Family>();
  for (const { spec, value } of values) {
    if (spec.prometheus.name === '') continue;
    const name = familyName(spec);
    const help = spec.unit === '' ? spec.meaning : `${spec.meaning} (${spec.unit})`;
    const family = families.get(name) ?? { kind: spec.prometheus.kind, help, lines: [] };
    families.set(name, family);
    const line = lineOf(name, spec, value);
    if (line !== undefined) family.lines.push(line);
  }
  let text = '';
  for (const [name, { kind, help, lines }] of families) {
    if (lines.length === 0) continue;
    text += `# HELP ${name} ${escapedHelp(help)}\n# TYPE ${name} ${kind === 'counter' ? 'counter' : 'gauge'}\n${lines.join('\n')}\n`;
  }
  return text;
}

/** A page of another site that has its name point here is not let in. */
const loopbackHost = /^(127(\.\d{1,3}){3}|\[::1\]|localhost)(:\d{1,5})?$/;

function answer(request: IncomingMessage, response: ServerResponse, exposition: () => string): void {
  const say = (status: number, text: string, more: Readonly<Record<string, string>> = {}): void => {
    response.writeHead(status, { 'content-type': CONTENT_TYPE, 'cache-control': 'no-store', ...more });
    response.end(request.method === 'HEAD' ? undefined : text);
  };
  if (!loopbackHost.test(request.headers.host ?? '')) say(421, 'Ask for this machine by a loopback address.\n');
  else if (request.url?.split('?')[0] !== PATH) say(404, `Only ${PATH} is here.\n`);
  else if (request.method !== 'GET' && request.method !== 'HEAD') say(405, 'Only GET and HEAD.\n', { allow: 'GET, HEAD' });
  else say(200, exposition());
}

export class PrometheusServer {
  readonly #server: Server;

  private constructor(server: Server) {
    this.#server = server;
  }

  /** Errors: TELEMETRY_PORT. */
  static async open(port: number, exposition: () => string): Promise<PrometheusServer> {
    const server = createServer({ requestTimeout: REQUEST_TIMEOUT_MS, headersTimeout: REQUEST_TIMEOUT_MS }, (request, response) =>
      answer(request, response, exposition),
    );
    await new Promise<void>((resolve, reject) => {
      server.once('error', (cause: Error) => {
        const message = 'The values for Prometheus cannot be served. Stop what uses the port, or choose another telemetry.prometheus_port.';
        const expected = `port ${port} of the loopback`;
        reject(new PremotorError('TELEMETRY_PORT', message, { field: 'telemetry.prometheus_port', expected, found: cause.message, cause }));
      });
      server.listen(port, '127.0.0.1', resolve);
    });
    return new PrometheusServer(server);
  }

  get url(): string {
    const address = this.#server.address();
    return `http://127.0.0.1:${typeof address === 'object' && address !== null ? address.port : 0}${PATH}`;
  }

  /** A second call does nothing more. */
  async close(): Promise<void> {
    this.#server.closeAllConnections();
    await new Promise<void>((resolve) => this.#server.close(() => resolve()));
  }
}
