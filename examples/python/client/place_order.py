"""Places an order and sees it through, whatever the network does meanwhile.

    place_order.py ORDER_ID ITEM_ID AMOUNT

`SAGAD_ADDR` is the daemon's URL. Exit codes: 0 placed, 3 turned away, 5 not known yet, 1 anything else.
"""

import json
import os
import sys
import time

import grpc
from google.protobuf.duration_pb2 import Duration
from sagad.v1 import saga_pb2 as pb
from sagad.v1.saga_pb2_grpc import SagaServiceStub

# How long the daemon holds one question before it answers with the saga as it stands.
WAIT_S = 5
# How long we wait for that answer before we take it as lost.
ANSWER_TIMEOUT_S = 10
ASK_AGAIN_AFTER_S = 0.5
# How long a buyer waits in front of the screen.
PATIENCE_S = 60
# What a piece costs, in points.
PRICE = 10

# These leave open what happened, or say to come back later. A connection that breaks shows as any of them.
ASK_AGAIN = {
    grpc.StatusCode.UNAVAILABLE,
    grpc.StatusCode.DEADLINE_EXCEEDED,
    grpc.StatusCode.RESOURCE_EXHAUSTED,
    grpc.StatusCode.ABORTED,
    grpc.StatusCode.CANCELLED,
    grpc.StatusCode.INTERNAL,
    grpc.StatusCode.UNKNOWN,
}


def place(sagas: SagaServiceStub, order_id: str, item_id: int, amount: int) -> pb.Saga | None:
    """Start the order saga under our own id and ask again until it is known how the order ended.

    The daemon knows the id: a repeated start never makes a second order. None: not known yet, and
    asking again later with the same id is safe.
    """
    order = {"user_id": 7, "items": [{"item_id": item_id, "amount": amount}], "total": amount * PRICE}
    request = pb.StartSagaRequest(
        saga_id=order_id,
        definition="order",
        input_json=json.dumps(order),
        wait=Duration(seconds=WAIT_S),
        wait_for=pb.WAIT_FOR_COMMITTED,
    )
    begun = time.monotonic()
    while time.monotonic() - begun < PATIENCE_S:
        try:
            saga = sagas.StartSaga(request, timeout=ANSWER_TIMEOUT_S).saga
        except grpc.RpcError as error:
            # Another order has this id, the input does not fit, ...: a definite no.
            if error.code() not in ASK_AGAIN:
                raise
            # Nobody there, too busy, or the answer was lost: the order may be placed or not.
            print(f"no answer yet, asking again: {error.details()}", file=sys.stderr)
        else:
            if saga.committed or saga.status in (pb.SAGA_STATUS_COMPENSATED, pb.SAGA_STATUS_ABANDONED):
                return saga
            # Under way: the daemon has held the question for as long as we said.
        time.sleep(ASK_AGAIN_AFTER_S)
    return None


def main() -> int:
    """Place the order of the command line."""
    try:
        order_id, item_id, amount = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
    except (IndexError, ValueError):
        print("usage: place_order.py ORDER_ID ITEM_ID AMOUNT", file=sys.stderr)
        return 2
    daemon = os.environ.get("SAGAD_ADDR", "http://127.0.0.1:7420").removeprefix("http://")
    with grpc.insecure_channel(daemon) as channel:
        try:
            saga = place(SagaServiceStub(channel), order_id, item_id, amount)
        except grpc.RpcError as error:
            print(f"{order_id}: {error.code().name}: {error.details()}", file=sys.stderr)
            return 1
    if saga is None:
        print(f"{order_id} is still under way: ask again with the same id")
        return 5
    if saga.committed:
        # It holds. Side work, such as clearing the cart, goes on by itself.
        print(f"{order_id} is placed: {saga.output_json}")
        return 0
    if saga.status == pb.SAGA_STATUS_COMPENSATED:
        # Nothing of it remains.
        print(f"{order_id} is turned away: {saga.failure.code}: {saga.failure.message}")
        return 3
    print(f"{order_id} was given up by an operator", file=sys.stderr)
    return 1


if __name__ == "__main__":
    sys.exit(main())
