/**
 * The stock service of the order saga.
 *
 *     main          the gRPC service: a request in, an outcome out
 *     registration  tells the daemon where it is
 *     barrier       one call, one effect
 *     stock         the shop's own part
 *
 * `SAGAD_ADDR` is the daemon's URL, `LISTEN` where to listen, `DATABASE` the SQLite file.
 */

import { fileURLToPath } from 'node:url';

import { credentials, loadPackageDefinition, Server, ServerCredentials, status } from '@grpc/grpc-js';
import { loadSync } from '@grpc/proto-loader';
import Database from 'libsql';

import type { ProtoGrpcType as ParticipantProto } from '../generated/participant.js';
import type { ProtoGrpcType as RegistryProto } from '../generated/registry.js';
import type { ParticipantServiceHandlers } from '../generated/sagad/v1/ParticipantService.js';
import * as barrier from './barrier.js';
import * as registration from './registration.js';
import * as stock from './stock.js';

/** Less than the two seconds for which the order saga waits for an answer. */
const DATABASE_TIMEOUT_MS = 1_000;
/** Calls that are at work when the service ends get this long. */
const DRAIN_MS = 5_000;

const daemon = process.env['SAGAD_ADDR'] ?? 'http://127.0.0.1:7420';
const listen = process.env['LISTEN'] ?? '127.0.0.1:9001';
const database = process.env['DATABASE'] ?? 'stock.db';

// Read at run time; the types were made from the same files, with the same options.
const proto = loadPackageDefinition(
  loadSync(['sagad/v1/participant.proto', 'sagad/v1/registry.proto'], {
    includeDirs: [fileURLToPath(new URL('../../proto', import.meta.url))],
    longs: String,
    enums: String,
    defaults: true,
    oneofs: true,
  }),
) as unknown as ParticipantProto & RegistryProto;

const db = new Database(database, { timeout: DATABASE_TIMEOUT_MS });
db.exec(barrier.SCHEMA);
db.exec(stock.SCHEMA);

/** Does what is asked; the barrier has seen to it that this is the first time. */
function serve(call: barrier.Call, action: string, inputJson: string): barrier.Answer {
  let pieces: stock.Pieces;
  try {
    pieces = stock.parse(inputJson);
  } catch (error) {
    // The input is the same on every attempt, so this is a definite no.
    return { refused: { code: 'BAD_INPUT', message: String(error) } };
  }
  if ('act' in call && action === 'deduct') return stock.deduct(db, pieces);
  if ('undo' in call && action === 'restore') return stock.restore(db, pieces);
  return { refused: { code: 'UNKNOWN_ACTION', message: `there is no ${action} here` } };
}

/** Gives an outcome, or a status, which is an unknown outcome: the daemon asks again, with the same key. */
function reply(
  callback: (error: object | null, outcome?: barrier.Answer) => void,
  call: barrier.Call,
  { action, inputJson }: { action: string; inputJson: string },
): void {
  try {
    callback(null, barrier.once(db, call, () => serve(call, action, inputJson)));
  } catch (error) {
    callback({ code: status.UNAVAILABLE, details: `the database: ${String(error)}` });
  }
}

const service: ParticipantServiceHandlers = {
  Execute: ({ request }, callback) => reply(callback, { act: request.idempotencyKey }, request),
  Compensate: ({ request }, callback) => reply(callback, { undo: request.actionIdempotencyKey }, request),
  // Only pivots and pending steps are asked about; `deduct` is neither.
  Probe: (_, callback) => callback({ code: status.UNIMPLEMENTED, details: 'there is no probe here' }),
};

const stop = new AbortController();
process.on('SIGTERM', () => stop.abort());
process.on('SIGINT', () => stop.abort());

const server = new Server();
server.addService(proto.sagad.v1.ParticipantService.service, service);
const port = await new Promise<number>((resolve, reject) => {
  server.bindAsync(listen, ServerCredentials.createInsecure(), (error, bound) => (error ? reject(error) : resolve(bound)));
});
const host = listen.slice(0, listen.lastIndexOf(':'));
const registry = new proto.sagad.v1.RegistryService(new URL(daemon).host, credentials.createInsecure());

// Returns once the registration has ended; the calls that are still at work are finished.
await registration.keep(registry, `http://${host}:${port}`, stop.signal);
registry.close();
setTimeout(() => server.forceShutdown(), DRAIN_MS).unref();
server.tryShutdown(() => db.close());
