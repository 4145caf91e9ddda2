/**
 * The service's log: named events with fields, one JSON object a line on standard output, which is what journald keeps. Owned by the command
 * `service`; no secret and no picture is in it.
 */
import { type DestinationStream, pino } from 'pino';

export type LogLevel = 'info' | 'warn' | 'error';

export type ServiceLog = (level: LogLevel, event: string, fields?: Readonly<Record<string, unknown>>) => void;

export function serviceLog(destination: DestinationStream): ServiceLog {
  const logger = pino({ base: null, timestamp: pino.stdTimeFunctions.isoTime, formatters: { level: (label) => ({ level: label }) } }, destination);
  return (level, event, fields = {}) => logger[level]({ event, ...fields });
}
