/**
 * The status page in the browser: takes what the supervisor sends and gives it to the parts that show it. It computes nothing about the robot, keeps
 * no truth of its own, and shows as live only what it heard in the last two seconds.
 */
import type { RunText, ServerMessage, StateText } from '../messages.js';
import { CameraPanel } from './cameras.js';
import { byId, fixed, setText } from './dom.js';
import { FaultPanel } from './faults.js';
import { BudgetPanel, CachePanel, PathPanel, showRun } from './figures.js';
import { JointPanel } from './joints.js';
import { Link } from './link.js';
import { StopButton } from './stop.js';
import { TimelinePanel } from './timeline.js';

const PHASES: Readonly<Record<StateText['phase'], string>> = { opening: 'loading the policy', running: '', ended: 'episode over' };

const cameras = new CameraPanel();
const timeline = new TimelinePanel();
const joints = new JointPanel();
const faults = new FaultPanel();
const budget = new BudgetPanel();
const cache = new CachePanel();
const path = new PathPanel();
let run: RunText | null = null;
let known = '';
let viewersMax = 0;

const link = new Link({
  onMessage: receive,
  onPicture: (head, jpeg) => void cameras.show(head, jpeg).catch(() => undefined),
  onAlive: () => {
    document.body.classList.remove('stale');
    byId('lost').hidden = true;
    setText(byId('link'), 'live');
  },
  onLost: (why, heardMs) => {
    document.body.classList.add('stale');
    const age = heardMs === undefined ? 'nothing was heard yet' : `last heard ${fixed(heardMs / 1000, 0)} s ago`;
    setText(byId('lost'), `Connection lost, robot state unknown (${why}). What is shown below is old. Trying again.`);
    byId('lost').hidden = false;
    setText(byId('link'), age);
    showState('unknown', 'connection lost');
  },
});
const stop = new StopButton(link);

function showState(state: string, reason: string): void {
  const element = byId('state');
  setText(element, state === 'unknown' ? 'robot state unknown' : state);
  element.dataset['state'] = state;
  setText(byId('reason'), reason);
}

function receive(message: ServerMessage): void {
  if (message.type === 'hello') hello(message);
  if (message.type === 'stopping') stop.heard();
  if (message.type === 'tick') tick(message);
}

/** Another process, or one whose run has become known: what was shown belongs to something else. */
function hello({ process, run: text, viewersMax: most }: Extract<ServerMessage, { type: 'hello' }>): void {
  viewersMax = most;
  const key = `${process} ${text?.id ?? ''}`;
  if (known !== '' && !known.startsWith(process)) stop.reset();
  run = text;
  // The server gives a new connection all that it has, from the beginning.
  known = key;
  if (!run) return;
  document.title = `${run.robot} - premotor`;
  cameras.begin(run);
  timeline.begin(run);
  joints.begin(run);
}

function tick({ state, chunks, faults: list, motion }: Extract<ServerMessage, { type: 'tick' }>): void {
  const outcome = state.outcome === null ? '' : `: ${state.outcome}`;
  const phase = PHASES[state.phase];
  const { service } = state;
  if (service) showState(service.state, [...service.reasons, state.reason].join(' '));
  else showState(state.state, `${phase}${state.phase === 'ended' ? `${outcome}. ` : phase === '' ? '' : '. '}${state.reason}`);
  setText(byId('clock'), `${fixed(state.timeS, 2)} s`);
  setText(byId('chunks'), run ? `${state.chunks} of ${run.chunksMax}` : '-');
  if (state.stop.phase === 'asked') stop.heard();
  if (list) faults.show(list);
  cache.update(state.cache);
  path.update(state);
  if (!run) return;
  showRun(run, `${state.viewers} of at most ${viewersMax}`);
  budget.update(state.budget, run);
  if (chunks) timeline.update(chunks);
  timeline.draw(state.timeS, state.phase === 'ended');
  if (motion) joints.add(motion);
  cameras.tick(state.timeS);
}

link.start();
