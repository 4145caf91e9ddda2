/**
 * The page for Prometheus: the text format by a grammar of the test, the server's manners; and the table of docs/TELEMETRY.md against the metrics.
 */
import { readFileSync } from 'node:fs';
import { request } from 'node:http';
import t from 'tap';
import { metricTable } from '../../src/telemetry/metrics.js';
import { expositionOf, PrometheusServer } from '../../src/telemetry/prometheus.js';
import { Reporter } from '../../src/telemetry/reporter.js';

const specs = metricTable({ joints: ['a"b\\c\nd', 'plain'], counts: ['cycles', 'missed'], sensors: ['elbow'], hostSensors: ['cpu'] });

interface Parsed {
  readonly types: Map<string, string>;
  readonly samples: { readonly name: string; readonly labels: Readonly<Record<string, string>>; readonly value: number }[];
}

/** The format 0.0.4: families of HELP, TYPE and samples, each family in one piece; it throws at what is none. */
function parse(text: string): Parsed {
  const types = new Map<string, string>();
  const samples: Parsed['samples'] = [];
  const helps = new Set<string>();
  let family = '';
  if (!text.endsWith('\n')) throw new Error('no newline at the end');
  for (const line of text.slice(0, -1).split('\n')) {
    const help = /^# HELP ([a-zA-Z_:][a-zA-Z0-9_:]*) ((?:[^\\]|\\\\|\\n)*)$/.exec(line);
    const type = /^# TYPE ([a-zA-Z_:][a-zA-Z0-9_:]*) (counter|gauge|histogram|summary|untyped)$/.exec(line);
    const sample = /^([a-zA-Z_:][a-zA-Z0-9_:]*)(?:\{(.*)\})? (-?\d+(?:\.\d+)?(?:e[+-]?\d+)?|NaN|[+-]Inf)$/.exec(line);
    if (help) {
      if (helps.has(help[1] ?? '')) throw new Error(`a second HELP: ${line}`);
      helps.add((family = help[1] ?? ''));
    } else if (type) {
      if (type[1] !== family || types.has(family)) throw new Error(`TYPE out of place: ${line}`);
      types.set(family, type[2] ?? '');
    } else if (sample) {
      if (sample[1] !== family || !types.has(family)) throw new Error(`a sample out of its family: ${line}`);
      samples.push({ name: family, labels: labelsOf(sample[2] ?? ''), value: Number(sample[3]) });
    } else throw new Error(`no line of the format: ${line}`);
  }
  return { types, samples };
}

function labelsOf(text: string): Readonly<Record<string, string>> {
  const labels: Record<string, string> = {};
  let rest = text;
  while (rest !== '') {
    const [all, name = '', value = ''] = /^([a-zA-Z_][a-zA-Z0-9_]*)="((?:[^\\"\n]|\\\\|\\"|\\n)*)"(?:,|$)/.exec(rest) ?? [];
    if (all === undefined || name in labels) throw new Error(`labels: ${rest}`);
    labels[name] = value.replace(/\\(.)/g, (_, escaped: string) => (escaped === 'n' ? '\n' : escaped));
    rest = rest.slice(all.length);
  }
  return labels;
}

t.test('the grammar rejects what is none', (t) => {
  for (const text of ['a 1', 'a 1\n', '# TYPE a gauge\na 1\n', '# HELP a b\n# TYPE a gauge\na{b="c\\d"} 1\n', '# HELP a b\n# TYPE a gauge\nb 1\n']) {
    t.throws(() => parse(text), JSON.stringify(text));
  }
  t.end();
});

t.test('every value, escaped, typed, once', (t) => {
  const reporter = new Reporter(specs);
  t.equal(expositionOf(reporter.values()), '', 'what has no value is left out');
  for (const { spec } of reporter.values()) {
    const value = spec.type === 'String' ? `text "of" \\ ${spec.name}\n` : spec.type === 'Boolean' ? true : spec.alias + 0.5;
    reporter.set(spec.name, spec.type.startsWith('Int') && typeof value === 'number' ? Math.floor(value) : value, 0);
  }
  reporter.set('Chunk/Predict Time', 1e-9, 0);
  const { types, samples } = parse(expositionOf(reporter.values()));
  const shown = specs.filter(({ prometheus }) => prometheus.name !== '');
  t.equal(samples.length, shown.length);
  t.equal(new Set(samples.map(({ name, labels }) => JSON.stringify([name, labels]))).size, samples.length, 'no series twice');
  for (const [name, type] of types) t.equal(name.endsWith('_total'), type === 'counter', name);
  for (const { name } of samples) t.match(name, /^premotor_/);
  const position = samples.find(({ name, labels }) => name === 'premotor_joint_position_radians' && labels['joint'] !== 'plain');
  t.equal(position?.labels['joint'], 'a"b\\c\nd');
  t.match(
    samples.find(({ name }) => name === 'premotor_robot_state'),
    { value: 1, labels: { value: 'text "of" \\ Robot/State\n' } },
  );
  t.equal(samples.find(({ name }) => name === 'premotor_chunk_predict_milliseconds')?.value, 1e-9);
  t.equal(samples.find(({ name, labels }) => name === 'premotor_motion_events_total' && labels['event'] === 'missed')?.value !== undefined, true);
  t.end();
});

const ask = (url: string, options: { readonly method?: string; readonly headers?: Readonly<Record<string, string>> } = {}) =>
  new Promise<{ status: number; text: string; type: string }>((resolve, reject) => {
    const asked = request(url, options, (response) => {
      let text = '';
      response.on('data', (part: Buffer) => (text += part.toString()));
      response.on('end', () => resolve({ status: response.statusCode ?? 0, text, type: response.headers['content-type'] ?? '' }));
    });
    asked.on('error', reject).end();
  });

t.test('the server: one page, read only, for loopback names', async (t) => {
  const server = await PrometheusServer.open(0, () => 'a 1\n');
  t.same(await ask(server.url), { status: 200, text: 'a 1\n', type: 'text/plain; version=0.0.4; charset=utf-8' });
  t.equal((await ask(`${server.url}?x=y`)).status, 200);
  t.match(await ask(server.url, { method: 'HEAD' }), { status: 200, text: '' });
  t.equal((await ask(server.url, { method: 'POST' })).status, 405);
  t.equal((await ask(server.url.replace('/metrics', '/'))).status, 404);
  t.equal((await ask(server.url, { headers: { host: 'rebound.example' } })).status, 421);
  await server.close();
  await server.close();
});

t.test('docs/TELEMETRY.md has every metric', (t) => {
  const text = readFileSync(new URL('../../docs/TELEMETRY.md', import.meta.url), 'utf8');
  const rows = [...text.matchAll(/^\| `([^`]+\/[^`]+)` \| (\w+) \| ([^|]*) \| ([^|]*) \| ([^|]*) \|$/gm)].map((row) =>
    row.slice(1, 6).map((cell) => cell.trim()),
  );
  const all = metricTable({ joints: ['<joint>'], counts: ['<counter>'], sensors: ['<sensor>'], hostSensors: ['<sensor>'], isService: true });
  const deadband = (isEvent: boolean, amount: number): string => (isEvent ? 'every change' : amount === 0 ? 'any change' : String(amount));
  t.same(
    rows,
    all.map(({ name, type, unit, deadband: amount, isEvent, meaning }) => [name, type, unit, deadband(isEvent, amount), meaning]),
  );
  t.end();
});
