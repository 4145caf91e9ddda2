/**
 * The task `push`: push the block into the zone. The expert steers by where the block is, so a knock against it is corrected.
 */
import { HOME_TIP, inverseKinematics, PADDLE, type Vector3 } from '../arm.js';
import { Random } from '../random.js';
import { BLOCK } from '../scene.js';
import type { BlockPose, TablePoint, World } from '../world.js';
import { distance } from './buttons.js';
import { Mover } from './moves.js';
import type { Task, TaskScene } from './task.js';

/** Where blocks and zones may be, metres; turns of the push away from straight outward, radians. */
const PUSH_AREA = { blockReachMin: 0.255, blockReachMax: 0.3, azimuthMax: 0.5, wayMin: 0.08, wayMax: 0.13, turnMax: 0.3, blockYawMax: 0.2 } as const;
const ZONE_REACH_MAX_M = 0.425;
/** The block's centre has to come this near to the zone's, and rest. */
export const PUSH_RADIUS_M = 0.04;
const REST_M_PER_S = 0.02;

/** Height of the paddle's centre while it pushes: 3 mm of air under it. */
const PUSH_HEIGHT_M = PADDLE.halfHeight + 0.003;
const APPROACH_HEIGHT_M = 0.1;
/** From the block's centre to the paddle's: in contact, and where the paddle comes down. */
const CONTACT_M = BLOCK.halfEdge + PADDLE.halfThickness;
const STANDOFF_M = CONTACT_M + 0.028;
/** The push: knots until it is given up, way per knot and its growth. */
const PUSH_KNOTS_MAX = 70;
const STEP_MAX_M = 0.0042;
const STEP_GROWTH_M = 0.0009;
/** The push ends when the zone's centre is this little ahead of the block's. */
const DONE_M = 0.004;
const ASIDE_MAX_RAD = 0.4;

export interface PushScene extends TaskScene {
  readonly block: BlockPose;
  readonly zone: TablePoint;
}

/** A point at a distance and direction from another. */
function ahead(from: TablePoint, directionRad: number, way: number): TablePoint {
  return { x: from.x + way * Math.cos(directionRad), y: from.y + way * Math.sin(directionRad) };
}

const at = ({ x, y }: TablePoint, height: number): Vector3 => [x, y, height];
const directionOf = (from: TablePoint, to: TablePoint): number => Math.atan2(to.y - from.y, to.x - from.x);

function place(random: Random): { block: BlockPose; zone: TablePoint } {
  for (;;) {
    const azimuth = random.uniform(-PUSH_AREA.azimuthMax, PUSH_AREA.azimuthMax);
    const block = ahead({ x: 0, y: 0 }, azimuth, random.uniform(PUSH_AREA.blockReachMin, PUSH_AREA.blockReachMax));
    const direction = azimuth + random.uniform(-PUSH_AREA.turnMax, PUSH_AREA.turnMax);
    const zone = ahead(block, direction, random.uniform(PUSH_AREA.wayMin, PUSH_AREA.wayMax));
    const yawRad = azimuth + random.uniform(-PUSH_AREA.blockYawMax, PUSH_AREA.blockYawMax);
    if (Math.hypot(zone.x, zone.y) <= ZONE_REACH_MAX_M) return { block: { ...block, yawRad }, zone };
  }
}

/** The block's centre; a task for blocks never meets another scene. */
function blockOf(world: World): TablePoint {
  const [x, y] = world.block() ?? [Number.NaN, Number.NaN];
  return { x, y };
}

/**
 * The block sticks to the paddle's flat face, so the paddle is moved as the block should move: towards the zone, no further aside than friction
 * allows.
 */
function* pushHome(world: World, mover: Mover, zone: TablePoint): Generator<Float64Array> {
  let step = 0;
  for (let knot = 0; knot < PUSH_KNOTS_MAX; knot++) {
    const block = blockOf(world);
    const [x, y] = mover.tip;
    const outward = Math.atan2(y, x);
    const aside = Math.atan2(Math.sin(directionOf(block, zone) - outward), Math.cos(directionOf(block, zone) - outward));
    // Done when the zone's centre is no longer ahead.
    if (distance(block, zone) * Math.cos(aside) < DONE_M) return;
    step = Math.min(STEP_MAX_M, step + STEP_GROWTH_M);
    const next = ahead({ x, y }, outward + Math.max(-ASIDE_MAX_RAD, Math.min(ASIDE_MAX_RAD, aside)), step);
    yield mover.step(at(next, PUSH_HEIGHT_M));
  }
}

export const push: Task<PushScene> = {
  name: 'push',
  kind: 'block',
  summary: 'push the block into the zone',
  chunksMax: 9,
  demonstrationKnots: 88,
  scene(seed) {
    const { block, zone } = place(new Random(seed));
    const direction = directionOf(block, zone);
    const goals = {
      block: [...inverseKinematics(at(ahead(block, direction, -STANDOFF_M), PUSH_HEIGHT_M))],
      zone: [...inverseKinematics(at(ahead(zone, direction, -CONTACT_M), PUSH_HEIGHT_M))],
    };
    return { task: 'push', seed, instruction: 'push the block into the zone', layout: { kind: 'block', block, zone }, goals, block, zone };
  },
  verdict(world, scene) {
    const isThere = distance(blockOf(world), (scene as PushScene).zone) < PUSH_RADIUS_M;
    return isThere && world.blockSpeedMPerS() < REST_M_PER_S ? 'succeeded' : 'open';
  },
  *expert(world, scene, random, options) {
    const { zone } = scene as PushScene;
    const mover = new Mover(random, options);
    yield* mover.hold(mover.knots(0, 3));
    const block = blockOf(world);
    const direction = directionOf(block, zone);
    const standoff = ahead(ahead(block, direction, -STANDOFF_M), direction + Math.PI / 2, random.normal(0.003));
    yield* mover.go(at(standoff, APPROACH_HEIGHT_M), mover.knots(16, 20));
    yield* mover.go(at(standoff, PUSH_HEIGHT_M), mover.knots(8, 9));
    yield* pushHome(world, mover, zone);
    const [x, y] = mover.tip;
    const back = directionOf({ x, y }, { x: HOME_TIP[0], y: HOME_TIP[1] });
    yield* mover.go(at(ahead({ x, y }, back, 0.04), APPROACH_HEIGHT_M), 11);
  },
};
