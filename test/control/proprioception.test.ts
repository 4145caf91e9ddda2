/** What the control cycle tells and asks of policies by their info: measured joints with every prediction, and only modes that they can serve. */
import t from 'tap';
import { ControlCycle } from '../../src/control/cycle.js';
import type { ModeName } from '../../src/control/modes/mode.js';
import { MODE_NAMES } from '../../src/control/modes/mode.js';
import type { PolicyInfo } from '../../src/policy/contract.js';
import { FakeCameras, FakePolicy, FakeRobot } from './fakes.js';

class InformedPolicy extends FakePolicy {
  readonly #more: Partial<PolicyInfo>;
  constructor(more: Partial<PolicyInfo>) {
    super((_, knot) => 0.001 * knot);
    this.#more = more;
  }
  override get info(): PolicyInfo {
    return { ...super.info, ...this.#more };
  }
}

function parts(info: Partial<PolicyInfo>, mode: ModeName = 'sync') {
  const [policy, robot] = [new InformedPolicy(info), new FakeRobot()];
  const cameras = new FakeCameras(robot);
  return { policy, robot, cycle: (): ControlCycle => new ControlCycle({ policy, robot, cameras, actionRateHz: 25, holdMs: 0, mode }) };
}

for (const mode of ['sync', 'async-naive', 'ensemble'] as const) {
  t.test(`measured joints in mode ${mode}`, async (t) => {
    const { policy, robot, cycle } = parts({ usesState: true }, mode);
    const measured: number[][] = [];
    policy.before = async (call) => {
      if (call.startsWith('predict')) measured.push([...(await robot.getState()).positionsRad]);
    };
    const loop = cycle();
    await loop.arm();
    await loop.run({ prompt: 'p', chunks: 3 });
    const asked = [...policy.predictions, ...policy.nexts];
    t.ok(asked.length >= 3);
    for (const { state } of asked) t.type(state, Float64Array);
    if (mode === 'sync') {
      t.same(
        asked.map(({ state }) => [...(state ?? [])]),
        measured,
        'where the joints are when it is asked',
      );
      t.not(measured[2]?.[0], measured[0]?.[0], 'which is not where they were');
    }
  });
}

t.test('a policy that does not ask for them is not told', async (t) => {
  const { policy, cycle } = parts({});
  const loop = cycle();
  await loop.arm();
  await loop.run({ prompt: 'p', chunks: 2 });
  t.notOk(policy.predictions.some((options) => 'state' in options));
});

t.test('modes', async (t) => {
  for (const mode of MODE_NAMES) {
    t.doesNotThrow(parts({}, mode).cycle, `${mode}: a policy that says nothing can all`);
    const limited = parts({ modes: ['sync', 'ensemble'] }, mode);
    if (mode === 'sync' || mode === 'ensemble') t.doesNotThrow(limited.cycle, mode);
    else t.throws(limited.cycle, { code: 'CONTROL_MODE', field: 'mode', expected: 'sync, ensemble', found: mode });
  }
});
