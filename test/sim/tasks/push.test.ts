/** The task push: where blocks and zones may be, and the verdict for a block that is short, moving, or there. */
import t from 'tap';
import { BLOCK } from '../../../src/sim/scene.js';
import { distance } from '../../../src/sim/tasks/buttons.js';
import { PUSH_RADIUS_M, push } from '../../../src/sim/tasks/push.js';
import { type TablePoint, World } from '../../../src/sim/world.js';

const world = await World.open('block');
t.teardown(() => world.close());

t.test('a seed fixes the scene; blocks and zones stay where the arm reaches them', async (t) => {
  t.same(push.scene(11), push.scene(11));
  const places = new Set<number>();
  const sides = new Set<boolean>();
  for (let seed = 0; seed < 300; seed++) {
    const { block, zone, instruction, goals, layout } = push.scene(seed);
    places.add(block.x);
    sides.add(zone.y > block.y);
    const way = distance(block, zone);
    const [near, far] = [Math.hypot(block.x, block.y), Math.hypot(zone.x, zone.y)];
    if (!(way >= 0.08 - 1e-9 && way <= 0.13 + 1e-9)) t.fail(`seed ${seed}: ${way} m to push`);
    if (!(near >= 0.255 - 1e-9 && near <= 0.3 + 1e-9 && far <= 0.425)) t.fail(`seed ${seed}: block at ${near} m, zone at ${far} m`);
    if (!(far > near)) t.fail(`seed ${seed} pushes towards the base`);
    if (!(way > PUSH_RADIUS_M)) t.fail(`seed ${seed} begins solved`);
    t.equal(layout.kind, 'block');
    t.equal(instruction, 'push the block into the zone');
    if (goals['block']?.length !== 4 || goals['zone']?.length !== 4) t.fail(`seed ${seed} lacks a goal`);
  }
  t.equal(places.size, 300);
  t.equal(sides.size, 2, 'to both sides');
});

/** Puts the block somewhere, as if it had been pushed there. */
function place(scene: ReturnType<typeof push.scene>, { x, y }: TablePoint): void {
  world.reset({ kind: 'block', zone: scene.zone, block: { ...scene.block, x, y } });
  const rest = world.state().positionsRad;
  for (let step = 0; step < 50; step++) world.step(rest);
}

/** On the way from block to zone, so many metres before the zone's centre. */
function before(scene: ReturnType<typeof push.scene>, way: number): TablePoint {
  const share = way / distance(scene.block, scene.zone);
  return { x: scene.zone.x + share * (scene.block.x - scene.zone.x), y: scene.zone.y + share * (scene.block.y - scene.zone.y) };
}

t.test('the block has to be in the zone and at rest', async (t) => {
  const scene = push.scene(3);
  place(scene, scene.block);
  t.equal(push.verdict(world, scene), 'open', 'at the start');
  place(scene, before(scene, PUSH_RADIUS_M + 0.003));
  t.equal(push.verdict(world, scene), 'open', 'short of the zone');
  place(scene, before(scene, PUSH_RADIUS_M - 0.003));
  t.equal(push.verdict(world, scene), 'succeeded', 'just inside');
  place(scene, scene.zone);
  t.equal(push.verdict(world, scene), 'succeeded', 'in the middle');
  const rest = world.state().positionsRad;
  world.nudgeBlock(0.2, 0);
  world.step(rest);
  t.equal(push.verdict(world, scene), 'open', 'still moving');
  for (let step = 0; step < 300; step++) world.step(rest);
  t.ok((world.block()?.[2] ?? 0) < BLOCK.halfEdge + 1e-3);
  t.equal(push.verdict(world, scene), 'succeeded', 'at rest again');
  world.nudgeBlock(0.9, 0);
  for (let step = 0; step < 500; step++) world.step(rest);
  t.equal(push.verdict(world, scene), 'open', 'knocked out of the zone');
});
