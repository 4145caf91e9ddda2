/**
 * What a policy server tells while it runs: named events with fields, as JSON lines for programs or as short lines for people. Owned by the command
 * `serve`. No token, prompt or picture is in it.
 */
import { type DestinationStream, pino } from 'pino';

export type Level = 'info' | 'warn' | 'error';

/** `event` is one of docs/SERVER.md, "Log". */
export type ServerLog = (level: Level, event: string, fields: Readonly<Record<string, string | number | boolean>>) => void;

/** JSON lines. */
export function jsonLog(destination: DestinationStream): ServerLog {
  const logger = pino({ base: null, timestamp: pino.stdTimeFunctions.isoTime, formatters: { level: (label) => ({ level: label }) } }, destination);
  return (level, event, fields) => logger[level]({ event, ...fields });
}

/** Lines for people. */
export function textLog(write: (line: string) => void, now: () => Date = () => new Date()): ServerLog {
  return (level, event, fields) => {
    const told = Object.entries(fields).map(
      ([name, value]) => `${name}=${typeof value === 'string' && /\s/.test(value) ? JSON.stringify(value) : value}`,
    );
    write(`${now().toISOString()} ${level === 'info' ? '' : `${level} `}${event} ${told.join(' ')}\n`);
  };
}
