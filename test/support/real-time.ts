/**
 * Tests that run against the clock run one after another, whatever else runs: two real-time loops on two cores would disturb each other. Not a test.
 */
import { once } from 'node:events';
import { connect, createServer, type Server, type Socket } from 'node:net';
import type { Test } from 'tap';

/** An abstract socket of Linux: it is gone with its process, however that ends. */
const TURN = '\0premotor-real-time-tests';

async function listening(clients: Set<Socket>): Promise<Server | undefined> {
  const server = createServer((socket) => clients.add(socket.on('error', () => undefined)));
  server.listen(TURN);
  try {
    await once(server, 'listening');
    return server;
  } catch {
    return undefined;
  }
}

/** Waits for its turn and keeps it until the test is over. */
export async function alone(t: Test): Promise<void> {
  const clients = new Set<Socket>();
  let server = await listening(clients);
  while (!server) {
    const waiting = connect(TURN).on('error', () => undefined);
    await once(waiting, 'close');
    server = await listening(clients);
  }
  const mine = server;
  t.teardown(() => {
    mine.close();
    for (const socket of clients) socket.destroy();
  });
}
