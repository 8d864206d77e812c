/** Tells the daemon where this service is, for as long as it is there. */

import { setTimeout as sleep } from 'node:timers/promises';

import { type ServiceError, status } from '@grpc/grpc-js';

import type { RegisterHandlersRequest } from '../generated/sagad/v1/RegisterHandlersRequest.js';
import type { RegistryServiceClient } from '../generated/sagad/v1/RegistryService.js';

/** A service that ends without a word is forgotten after this time; two renewals may be lost. */
const TTL_S = 15;
const RENEW_EVERY_MS = 5_000;
const RETRY_AFTER_MS = 1_000;
const REQUEST_TIMEOUT_MS = 2_000;

/** Stays registered until `stop` is aborted, then says good-bye: no new call comes after that. */
export async function keep(
  registry: RegistryServiceClient,
  endpoint: string,
  stop: AbortSignal,
): Promise<void> {
  let id: string | undefined;
  while (!stop.aborted) {
    let pause = RENEW_EVERY_MS;
    try {
      id = await renew(registry, endpoint, id);
    } catch (error) {
      // The daemon is away. It may come back with this registration or without it.
      console.error(`stock: not registered, trying again: ${String(error)}`);
      pause = RETRY_AFTER_MS;
    }
    await sleep(pause, undefined, { signal: stop }).catch(() => {}); // woken by `stop`
  }
  if (id !== undefined) {
    await deregister(registry, id).catch((error: unknown) => {
      console.error(`stock: the registration is left to run out: ${String(error)}`);
    });
  }
}

/** Renews the registration, or makes it; gives its id. */
async function renew(registry: RegistryServiceClient, endpoint: string, id?: string): Promise<string> {
  if (id !== undefined) {
    try {
      await renewal(registry, id);
      return id;
    } catch (error) {
      if ((error as ServiceError).code !== status.NOT_FOUND) throw error;
      // It ran out: make another.
    }
  }
  const made = await register(registry, endpoint);
  console.log(`stock: registered at the daemon as ${endpoint}`);
  return made;
}

const deadline = () => ({ deadline: Date.now() + REQUEST_TIMEOUT_MS });

function register(registry: RegistryServiceClient, endpoint: string): Promise<string> {
  const request: RegisterHandlersRequest = {
    participant: 'stock',
    endpoint,
    protocol: 'PROTOCOL_SAGAD',
    actions: [{ name: 'deduct' }, { name: 'restore' }],
    ttl: { seconds: TTL_S },
  };
  return new Promise((resolve, reject) => {
    registry.registerHandlers(request, deadline(), (error, response) => {
      if (response) resolve(response.registrationId);
      else reject(error);
    });
  });
}

function renewal(registry: RegistryServiceClient, registrationId: string): Promise<void> {
  return new Promise((resolve, reject) => {
    registry.renewRegistration({ registrationId }, deadline(), (error) => (error ? reject(error) : resolve()));
  });
}

function deregister(registry: RegistryServiceClient, registrationId: string): Promise<void> {
  return new Promise((resolve, reject) => {
    registry.deregisterHandlers({ registrationId }, deadline(), (error) => (error ? reject(error) : resolve()));
  });
}
