/**
 * Places an order and sees it through, whatever the network does meanwhile.
 *
 *     node place_order.js ORDER_ID ITEM_ID AMOUNT
 *
 * `SAGAD_ADDR` is the daemon's URL. Exit codes: 0 placed, 3 turned away, 5 not known yet, 1 anything else.
 */

import { setTimeout as sleep } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';

import { credentials, loadPackageDefinition, type ServiceError, status } from '@grpc/grpc-js';
import { loadSync } from '@grpc/proto-loader';

import type { Saga__Output as Saga } from '../generated/sagad/v1/Saga.js';
import type { SagaServiceClient } from '../generated/sagad/v1/SagaService.js';
import type { StartSagaRequest } from '../generated/sagad/v1/StartSagaRequest.js';
import type { ProtoGrpcType } from '../generated/saga.js';

/** How long the daemon holds one question before it answers with the saga as it stands. */
const WAIT_S = 5;
/** How long we wait for that answer before we take it as lost. */
const ANSWER_TIMEOUT_MS = 10_000;
const ASK_AGAIN_AFTER_MS = 500;
/** How long a buyer waits in front of the screen. */
const PATIENCE_MS = 60_000;
/** What a piece costs, in points. */
const PRICE = 10;

/** These leave open what happened, or say to come back later. A connection that breaks shows as any of them. */
const ASK_AGAIN = new Set([
  status.UNAVAILABLE,
  status.DEADLINE_EXCEEDED,
  status.RESOURCE_EXHAUSTED,
  status.ABORTED,
  status.CANCELLED,
  status.INTERNAL,
  status.UNKNOWN,
]);

// Read at run time; the types were made from the same file, with the same options.
const proto = loadPackageDefinition(
  loadSync('sagad/v1/saga.proto', {
    includeDirs: [fileURLToPath(new URL('../../proto', import.meta.url))],
    longs: String,
    enums: String,
    defaults: true,
    oneofs: true,
  }),
) as unknown as ProtoGrpcType;

/**
 * Starts the order saga under our own id and asks again, with the same request, until it is known how the
 * order ended. The daemon knows the id: a repeated start never makes a second order.
 *
 * Undefined: not known yet, and asking again later with the same id is safe.
 */
async function place(
  sagas: SagaServiceClient,
  orderId: string,
  itemId: number,
  amount: number,
): Promise<Saga | undefined> {
  const order = { user_id: 7, items: [{ item_id: itemId, amount }], total: amount * PRICE };
  const request: StartSagaRequest = {
    sagaId: orderId,
    definition: 'order',
    inputJson: JSON.stringify(order),
    wait: { seconds: WAIT_S },
    waitFor: 'WAIT_FOR_COMMITTED',
  };
  const begun = Date.now();
  while (Date.now() - begun < PATIENCE_MS) {
    try {
      const saga = await start(sagas, request);
      const ended = saga.status === 'SAGA_STATUS_COMPENSATED' || saga.status === 'SAGA_STATUS_ABANDONED';
      if (saga.committed || ended) return saga;
      // Under way: the daemon has held the question for as long as we said.
    } catch (error) {
      const { code, details } = error as ServiceError;
      // Another order has this id, the input does not fit, ...: a definite no.
      if (!ASK_AGAIN.has(code)) throw error;
      // Nobody there, too busy, or the answer was lost: the order may be placed or not.
      console.error(`no answer yet, asking again: ${details}`);
    }
    await sleep(ASK_AGAIN_AFTER_MS);
  }
  return undefined;
}

function start(sagas: SagaServiceClient, request: StartSagaRequest): Promise<Saga> {
  return new Promise((resolve, reject) => {
    sagas.startSaga(request, { deadline: Date.now() + ANSWER_TIMEOUT_MS }, (error, response) => {
      if (response?.saga) resolve(response.saga);
      else reject(error);
    });
  });
}

async function main(): Promise<number> {
  const [orderId, item, pieces] = process.argv.slice(2);
  const [itemId, amount] = [Number(item), Number(pieces)];
  if (orderId === undefined || !Number.isSafeInteger(itemId) || !Number.isSafeInteger(amount)) {
    console.error('usage: place_order ORDER_ID ITEM_ID AMOUNT');
    return 2;
  }
  const daemon = new URL(process.env['SAGAD_ADDR'] ?? 'http://127.0.0.1:7420').host;
  const sagas = new proto.sagad.v1.SagaService(daemon, credentials.createInsecure());
  try {
    const saga = await place(sagas, orderId, itemId, amount);
    if (!saga) {
      console.log(`${orderId} is still under way: ask again with the same id`);
      return 5;
    }
    if (saga.committed) {
      // It holds. Side work, such as clearing the cart, goes on by itself.
      console.log(`${orderId} is placed: ${saga.outputJson}`);
      return 0;
    }
    if (saga.status === 'SAGA_STATUS_COMPENSATED') {
      // Nothing of it remains.
      console.log(`${orderId} is turned away: ${saga.failure?.code}: ${saga.failure?.message}`);
      return 3;
    }
    console.error(`${orderId} was given up by an operator`);
  } catch (error) {
    console.error(`${orderId}: ${String(error)}`);
  } finally {
    sagas.close();
  }
  return 1;
}

process.exitCode = await main();
