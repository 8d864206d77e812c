"""Tells the daemon where this service is, for as long as it is there."""

import sys
from threading import Event

import grpc
from google.protobuf.duration_pb2 import Duration
from sagad.v1 import registry_pb2 as pb
from sagad.v1.registry_pb2_grpc import RegistryServiceStub

# A service that ends without a word is forgotten after this time; two renewals may be lost.
TTL_S = 15
RENEW_EVERY_S = 5
RETRY_AFTER_S = 1
REQUEST_TIMEOUT_S = 2


def keep(daemon: grpc.Channel, endpoint: str, stop: Event) -> None:
    """Stay registered until `stop` is set, then say good-bye: no new call comes after that."""
    registry = RegistryServiceStub(daemon)
    registration_id: str | None = None
    pause = 0
    while not stop.wait(pause):
        try:
            registration_id = renew(registry, endpoint, registration_id)
            pause = RENEW_EVERY_S
        except grpc.RpcError as error:
            # The daemon is away. It may come back with this registration or without it.
            print(f"stock: not registered, trying again: {error.details()}", file=sys.stderr)
            pause = RETRY_AFTER_S
    if registration_id is not None:
        goodbye = pb.DeregisterHandlersRequest(registration_id=registration_id)
        try:
            registry.DeregisterHandlers(goodbye, timeout=REQUEST_TIMEOUT_S)
        except grpc.RpcError as error:
            print(f"stock: the registration is left to run out: {error.details()}", file=sys.stderr)


def renew(registry: RegistryServiceStub, endpoint: str, registration_id: str | None) -> str:
    """Renew the registration, or make it; return its id."""
    if registration_id is not None:
        try:
            request = pb.RenewRegistrationRequest(registration_id=registration_id)
            registry.RenewRegistration(request, timeout=REQUEST_TIMEOUT_S)
        except grpc.RpcError as error:
            if error.code() != grpc.StatusCode.NOT_FOUND:
                raise
            # It ran out: make another.
        else:
            return registration_id
    made = registry.RegisterHandlers(
        pb.RegisterHandlersRequest(
            participant="stock",
            endpoint=endpoint,
            protocol=pb.PROTOCOL_SAGAD,
            actions=[pb.HandlerAction(name="deduct"), pb.HandlerAction(name="restore")],
            ttl=Duration(seconds=TTL_S),
        ),
        timeout=REQUEST_TIMEOUT_S,
    )
    print(f"stock: registered at the daemon as {endpoint}", flush=True)
    return made.registration_id
